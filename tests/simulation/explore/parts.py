"""What a configuration is made of: pods with their disks, connections, compare-and-sets under way."""

from collections import deque
from dataclasses import dataclass, field

from kvcommon.numbers import Timing
from kvcoord.contract import Lost, PartitionState, ReplicaId, RunId, Won
from kvnode.core.messages import Message
from kvnode.core.replica import Replica
from kvnode.core.types import START, Batch, EpochStart, LogView, Meta

TIMING = Timing(heartbeat=1.0, lease=2.0, follower_timeout=2.0, claim_head_start=0.3)
STEP = 1.1  # seconds by which time passes at once
USUAL = ("deliver", "land", "answer", "dial", "flush", "watch", "read", "tick", "start", "write", "time")
Action = tuple[str, int]  # what, and to which replica, connection's end or attempt


class BrokenError(Exception):
    """An invariant does not hold in a state."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How often at most: writes, deaths, broken connections, unanswered compare-and-sets, steps of time."""

    writes: int = 1
    deaths: int = 1
    breaks: int = 0
    maybes: int = 1
    steps: int = 4


@dataclass
class Disk:
    """One incarnation's log and meta."""

    replica: ReplicaId
    meta: Meta = field(default_factory=Meta)
    log: list[Batch] = field(default_factory=list)
    durable: int = 0

    def view(self) -> LogView:
        self.durable = len(self.log)
        epochs: list[EpochStart] = []
        for batch in self.log:
            if not epochs or epochs[-1].epoch != batch.epoch:
                epochs.append(EpochStart(batch.epoch, batch.first))
        return LogView(self.log[-1].end if self.log else START, 0, tuple(epochs))


@dataclass(eq=False)
class Node:
    """A pod: its disk, its process while it runs."""

    pod: str
    disk: Disk
    core: Replica | None = None
    runs: int = 0
    incarnations: int = 1
    seen: int = -1
    dialing: RunId | None = None
    reading: int | None = None  # number of the read of the state that is under way
    picture: int | None = field(default=None, metadata={"key": False})  # a hash of the rest, once it is worked out

    @property
    def me(self) -> RunId:
        return RunId(self.disk.replica, f"{self.pod}-r{self.runs}")


@dataclass
class End:
    """One end of a connection: whose, and what is on its way to it (None: the other end closed)."""

    node: int
    run: RunId
    number: int
    other: int
    queue: deque[Message | None] = field(default_factory=deque)
    open: bool = True


@dataclass
class Attempt:
    """A compare-and-set under way."""

    node: int
    run: RunId
    expected: int
    state: PartitionState
    landed: Won | Lost | None = None
    answered: bool = False
