"""Nodes and the router as processes: started on their host, watched, started again when they end by themselves."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from kvlocal import probe
from kvlocal.launch import Command, Launcher, Process
from kvlocal.processes import Child, Exit
from tests.torture.clocks import HostClock
from tests.torture.disks import Disk
from tests.torture.network import NothingHappenedError

END_SECONDS = 10.0
STOP_SECONDS = 1.0
MOST_AHEAD = 10_000_000  # seconds


@dataclass(frozen=True, slots=True)
class HostLauncher:
    """Starts processes on one host, each time with other boot-time clocks, as after a boot of the machine."""

    nursery: Launcher
    namespace: str  # path; empty: this process's
    clock: HostClock
    rng: random.Random

    async def ready(self) -> None:
        """Until `launch` is quick."""
        await self.nursery.ready()

    def launch(self, command: Command) -> Process:
        """Start it there."""
        ahead = str(self.rng.randint(0, MOST_AHEAD)) if self.namespace else ""
        there = (self.namespace, ahead, str(self.clock.file), command.module, *command.arguments)
        return self.nursery.launch(replace(command, module="tests.torture.hosted", arguments=there))

    def close(self) -> None:
        """The nursery is others', too."""


@dataclass(slots=True)
class Server:
    """One process and its successors on a host. `busy` is held by the fault that is at work on the process."""

    name: str
    address: str
    ports: dict[str, int]
    child: Child
    exits: list[Exit] = field(default_factory=list)
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)

    def start(self) -> None:
        """Start it unless it runs."""
        self.child.start()

    async def kill(self) -> None:
        """SIGKILL; it stays down until `start`. Raises NothingHappenedError if that is not how it ended."""
        await self._end(signal.SIGKILL, (-signal.SIGKILL,))

    async def terminate(self) -> None:
        """SIGTERM; it stays down until `start`. Raises NothingHappenedError unless it ended with exit code 0.

        Or by the signal itself, when its interpreter was still starting.
        """
        await self._end(signal.SIGTERM, (0, -signal.SIGTERM))

    async def _end(self, number: signal.Signals, expected: Collection[int]) -> None:
        before = len(self.exits)
        self.child.signal(number, hold=True)
        async with asyncio.timeout(60):
            await self.child.wait_down()
            while len(self.exits) == before:  # noqa: ASYNC110 - told in the next turns of the loop
                await asyncio.sleep(0)
        code = self.exits[-1].code
        if code not in expected:
            raise NothingHappenedError(f"{self.name} was sent {number.name} and ended with {code}: {self.exits[-1]}")

    def freeze(self) -> None:
        """SIGSTOP, seen to have stopped it."""
        self.child.signal(signal.SIGSTOP)
        stopped(self.child.pid)

    def thaw(self) -> None:
        """SIGCONT."""
        self.child.signal(signal.SIGCONT)

    async def ready(self) -> str:
        """Empty when it says that it is ready, else why not."""
        return await probe.ready(self.ports["http"], host=self.address)

    async def status(self) -> dict[str, object]:
        """What it says of itself; empty when it does not answer."""
        return dict(await probe.status(self.ports["http"], host=self.address) or {})

    async def end(self) -> None:
        """End it for good."""
        await self.child.end(END_SECONDS)


@dataclass(slots=True)
class Node(Server):
    """A database node with its disk and its clock."""

    partition: int = 0
    disk: Disk | None = None
    clock: HostClock | None = None
    disk_busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    clock_busy: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def folder(self) -> Path:
        """Its data directory."""
        assert self.disk is not None
        return self.disk.folder / "data"


def stopped(pid: int | None) -> None:
    """Raise NothingHappenedError unless the process is stopped, in a moment: on a busy machine it has to have its turn for that."""
    until = time.monotonic() + STOP_SECONDS
    while True:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "T":
            return
        if time.monotonic() >= until:
            raise NothingHappenedError(f"process {pid} was sent SIGSTOP and is in state {state}")
        os.sched_yield()


def exit_teller(exits: list[Exit], tell: Callable[[Exit], None]) -> Callable[[Exit], None]:
    """Keep each exit; tell of those that nobody asked for."""

    def exited(one: Exit) -> None:
        exits.append(one)
        if not one.asked:
            tell(one)

    return exited
