"""The values the core's parts pass around."""

from dataclasses import dataclass, field
from enum import Enum

from kvcommon.numbers import Timing
from kvcommon.values import value
from kvcoord.contract import PartitionState, RunId


@value(order=True)
class Position:
    """A place in a partition's log: the epoch that wrote the record, and its index. (0, 0) is before the first."""

    epoch: int
    index: int


START = Position(0, 0)


@value()
class Batch:
    """A log batch as the epoch's leader wrote it: records `first..last`, opaque bytes."""

    epoch: int
    first: int
    last: int
    data: bytes

    @property
    def end(self) -> Position:
        return Position(self.epoch, self.last)


@dataclass(frozen=True, slots=True)
class EpochStart:
    """The first index that an epoch wrote (rule 13)."""

    epoch: int
    first: int


class Role(Enum):
    """What a replica is doing. Only LEADER answers linearizable requests, and only while `Replica.serving`."""

    FOLLOWER = "follower"
    CLAIMING = "claiming"
    LEADER = "leader"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Meta:
    """What is synced to this replica's own disk before it is acted on (rules 3 and 19).

    `tried` adds replicas and follows `state`, by a compare-and-set that is not settled: it may have been done, and
    those it adds may have acted on it. `claims` are the runs that claimed on this disk and of which `state` does not say
    that they lost: a state that another run of this replica leads was made by a disk that has seen more than this one.
    """

    accepted_epoch: int = 0
    state: PartitionState | None = None
    state_version: int = -1
    tried: PartitionState | None = None
    claims: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LogView:
    """A replica's log as found at start, all of it durable."""

    end: Position = START
    commit: int = 0  # a lower bound, from the commit fields in the batches
    epochs: tuple[EpochStart, ...] = ()
    torn: bool = False  # a torn tail was cut: let others claim first (rule 17)
    horizon: int = 0  # below it the log is compacted, a prefix of nothing (rule 14)


@dataclass(frozen=True, slots=True)
class Config:
    """Who this replica is and its numbers. `window` is what may be sent to a follower and not yet acknowledged, bytes."""

    cluster_id: str
    partition: int
    me: RunId
    timing: Timing = field(default_factory=Timing)
    window: int = 16 << 20
    retry: float = 0.1  # seconds between tries of a dial or of a compare-and-set without an answer
