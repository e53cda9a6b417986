"""What a run is made of: sizes, a seed that decides the rest, and what of it is left out.

A seed gives a list of faults and, for each client, a list of requests, both numbered. Every fault and every request
draws from randomness of its own, so that any of them can be left out and the others stay what they are.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

World = Literal["core", "whole", "store"]
CALM = ("clocks", "coordination", "disks", "network")
STORE_CALM = ("disks",)  # in a world of stores: a power-off loses just what was not synced


class Asked(NamedTuple):
    """A request of a client: the client's number, the request's, and the true time at which it is begun."""

    client: int
    number: int
    at: float

    def __str__(self) -> str:
        return f"{self.client}:{self.number}@{self.at!r}"


class Struck(NamedTuple):
    """A fault of the seed's list, which struck at this true time."""

    number: int
    at: float
    kind: str


@dataclass(frozen=True, slots=True)
class Options:
    """A run, of one partition's core ("core"), of a whole cluster ("whole") or of stores ("store"). `faults` and `requests`: only these (None: all that the seed gives). `calm`: parts that do no mischief."""

    seed: int
    replicas: int = 3
    clients: int = 5
    keys: int = 5
    seconds: float = 12.0  # of faults
    verbose: bool = False
    world: World = "core"
    calm: frozenset[str] = frozenset()
    faults: frozenset[int] | None = None
    requests: tuple[Asked, ...] | None = None
    scenario: str = ""  # of a whole cluster: what happens to it, in place of the seed's faults

    @property
    def command(self) -> str:
        """What replays the run exactly."""
        if self.scenario:
            return f".venv/bin/python -m tests.simulation --scenario {self.scenario} --seed {self.seed}"
        words = [".venv/bin/python -m tests.simulation", f"--world {self.world}"]
        words += [f"--seed {self.seed}", f"--replicas {self.replicas}"]
        words += [f"--clients {self.clients}", f"--keys {self.keys}", f"--seconds {self.seconds:g}"]
        if self.calm:
            words.append(f"--calm {','.join(sorted(self.calm))}")
        if self.faults is not None:
            words.append(f"--faults {','.join(map(str, sorted(self.faults))) or 'none'}")
        if self.requests is not None:
            words.append(f"--requests {','.join(map(str, self.requests)) or 'none'}")
        return " ".join(words)


def parse_faults(text: str) -> frozenset[int]:
    """Of "3,7", or "none". Raises ValueError."""
    return frozenset() if text == "none" else frozenset(map(int, text.split(",")))


def parse_requests(text: str) -> tuple[Asked, ...]:
    """Of "client:number@time,...", or "none". Raises ValueError."""
    return () if text == "none" else tuple(_parse_request(word) for word in text.split(","))


def _parse_request(word: str) -> Asked:
    client, _, rest = word.partition(":")
    number, _, at = rest.partition("@")
    return Asked(int(client), int(number), float(at))


def parse_calm(text: str) -> frozenset[str]:
    """Of "clocks,network". Raises ValueError."""
    parts = frozenset(text.split(","))
    if parts - set(CALM):
        raise ValueError(f"{text!r}: {', '.join(CALM)} can be calm")
    return parts
