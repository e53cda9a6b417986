"""What the checks look at, in both worlds: a run of a process, and the partition that it belongs to."""

from collections.abc import Container, Sequence
from typing import Any, Protocol

from kvcommon.numbers import Timing
from kvcoord.contract import PartitionState, RunId
from tests.simulation.disk import Disk


class Clock(Protocol):
    """A machine's clock, which the world can read backwards."""

    def now(self) -> float: ...

    def true(self, local: float) -> float:
        """The true time at which this clock shows `local`."""


class Named(Protocol):
    """Whose doing something is."""

    who: str


class Process(Protocol):
    """One run."""

    who: str
    run: RunId
    alive: bool
    disk: Disk
    led: int  # epoch led before or after the newest step: what that step commits, its leader committed
    meant: dict[int, RunId]  # whom each follower's hello named
    heard: tuple[int, float]  # newest Append of the leader: its number, when it was handled

    @property
    def clock(self) -> Clock: ...

    @property
    def core(self) -> Any: ...

    @property
    def host(self) -> Any:
        """Its shell, or a model of it: `host.store.applied` is how far the index is."""

    @property
    def disk_failed(self) -> bool: ...

    @property
    def waits(self) -> bool:
        """Whether effects of its newest step are yet to be carried out."""


class Coordination(Protocol):
    """The partition's true state, and the runs whose death was ever told."""

    @property
    def state(self) -> PartitionState: ...

    @property
    def words(self) -> Container[str]: ...


class Partition(Protocol):
    """All replicas of a partition."""

    timing: Timing
    ended: dict[RunId, float]

    @property
    def compacts(self) -> bool:
        """Whether logs may be compacted."""

    @property
    def coordination(self) -> Coordination: ...

    def processes(self) -> Sequence[Process]: ...
