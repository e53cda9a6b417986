"""The hosts and what is wrong between them: impairments, each of which can be shown to have touched packets."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from tests.torture.switch import NETWORK, Pair

ENDS_WITH_US = ("setpriv", "--pdeathsig", "KILL")


class NothingHappenedError(AssertionError):
    """A fault was asked for, and nothing shows that it happened."""


@dataclass(frozen=True, slots=True)
class Impairment:
    """What happens to packets: the share lost, the seconds that the others are kept, and up to so many more."""

    lost: float = 1.0
    kept: float = 0.0
    jitter: float = 0.0


CUT = Impairment()


@dataclass(slots=True)
class Touched:
    """Packets that an impairment lost and kept."""

    lost: int = 0
    kept: int = 0

    def check(self, impairment: Impairment) -> None:
        """Raise NothingHappenedError unless packets were lost (of a cut) or kept (of a slow link)."""
        if not (self.lost if impairment.lost == 1.0 else self.kept):
            raise NothingHappenedError(f"the network was to be hurt ({impairment}), but no packet passed there")


class Network(Protocol):
    """Hosts by name; the first one is this process's."""

    can_hurt: bool

    def address(self, host: str) -> str:
        """Its IP address."""
        ...

    def namespace(self, host: str) -> str:
        """The path of its network namespace; empty where all are in this process's."""
        ...

    def command(self, host: str) -> tuple[str, ...]:
        """The command that runs the command behind it on that host, and ends it with this process."""
        ...

    def close(self) -> None:
        """No more network."""
        ...


class Loopback:
    """Where there are no namespaces: all hosts are 127.0.0.1, and nothing is ever wrong between them."""

    can_hurt = False

    def address(self, host: str) -> str:
        del host
        return "127.0.0.1"

    def namespace(self, host: str) -> str:
        del host
        return ""

    def command(self, host: str) -> tuple[str, ...]:
        del host
        return ENDS_WITH_US

    def close(self) -> None:
        """Nothing to end."""


class Switched:
    """Network namespaces and the switch between them."""

    can_hurt = True

    def __init__(self, hosts: Sequence[str]) -> None:
        """Make them; this process must have a network namespace of its own."""
        self._numbers = {host: number for number, host in enumerate(hosts, 1)}
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(*ENDS_WITH_US, sys.executable, "-m", "tests.torture.switch"),
                    *(str(theirs.fileno()), json.dumps(self._numbers)),
                ],
                pass_fds=[theirs.fileno()],
            )
        answer = self._control.recv(1 << 20)
        assert answer, "the switch did not start"
        self._namespaces: dict[str, int] = json.loads(answer)
        self._active: dict[int, tuple[frozenset[Pair], Impairment]] = {}
        self._made = 0

    def address(self, host: str) -> str:
        return f"{NETWORK}{self._numbers[host]}"

    def namespace(self, host: str) -> str:
        return f"/proc/{self._process.pid}/fd/{self._namespaces[host]}"

    def command(self, host: str) -> tuple[str, ...]:
        return (*ENDS_WITH_US, "nsenter", f"--net={self.namespace(host)}")

    def pairs(self, sources: Iterable[str], targets: Iterable[str]) -> frozenset[Pair]:
        """Every way from one of these hosts to another one of those."""
        ways = {(self._numbers[a], self._numbers[b]) for a in sources for b in list(targets)}
        return frozenset((a, b) for a, b in ways if a != b)

    @contextmanager
    def hurt(self, pairs: frozenset[Pair], impairment: Impairment) -> Iterator[Touched]:
        """Impair these ways while the block runs; then the yielded counts say what was touched."""
        touched = Touched()
        before = self._apply()
        self._made += 1
        number = self._made
        self._active[number] = pairs, impairment
        self._apply()
        try:
            yield touched
        finally:
            del self._active[number]
            after = self._apply()
            for pair in pairs:
                (lost, kept), (had_lost, had_kept) = after.get(pair, (0, 0)), before.get(pair, (0, 0))
                touched.lost += lost - had_lost
                touched.kept += kept - had_kept

    def _apply(self) -> dict[Pair, tuple[int, int]]:
        """Tell the switch what is active; where two impairments meet, the worse of each measure counts. Returns counts."""
        rules: dict[Pair, tuple[float, float, float]] = {}
        for pairs, new in self._active.values():
            for pair in pairs:
                lost, kept, jitter = rules.get(pair, (0.0, 0.0, 0.0))
                rules[pair] = max(lost, new.lost), max(kept, new.kept), max(jitter, new.jitter)
        self._control.send(json.dumps([[*pair, *rule] for pair, rule in rules.items()]).encode())
        counts = json.loads(self._control.recv(1 << 20))
        return {(a, b): (lost, kept) for a, b, lost, kept in counts}

    def close(self) -> None:
        """End the switch; the namespaces go with the last process in them."""
        self._control.close()
        self._process.wait()
