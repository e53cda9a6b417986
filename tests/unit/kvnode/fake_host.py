"""A host whose commits a test makes by hand: the service's other side."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from kvcommon.slotmap import SlotMap
from kvcommon.versions import EPOCH_MS, VersionClock
from kvcoord.contract import PartitionState, ReplicaId, RunId
from kvnode.core.doubt import Loss
from kvnode.core.messages import RefuseReason
from kvnode.core.types import START, Config, Position, Role
from kvnode.operations import Outcome, Request
from kvnode.service import Service
from kvnode.shell.host import Host
from kvstore.batch import Record, iter_batches, iter_records
from kvstore.store import Store, StoreOptions

ME = RunId(ReplicaId("c-p0-0", "1"), "r1")
STATE = PartitionState(1, ME, (ME.replica,), ("c-p0-0",), 1)


@dataclass
class FakeClock:
    """Both clocks, moved by hand."""

    time: float = 1000.0
    wall: int = EPOCH_MS + 1_000_000

    def now(self) -> float:
        return self.time

    def wall_ms(self) -> int:
        return self.wall


@dataclass
class FakeCore:
    """What the service asks of a replica."""

    role: Role = Role.LEADER
    epoch: int = 1
    end: Position = START
    commit: int = 0
    durable: int = 0
    accepting: bool = True
    enough: bool = True
    lease_until: float = float("inf")
    fresh_at: float = float("-inf")
    state: PartitionState | None = STATE
    in_sync: bool = True
    connected: bool = False
    whole: bool = True
    failure: str = ""
    strange: str = ""
    loss: tuple[Loss, int] | None = None
    refused: RefuseReason | None = None
    slow: dict[ReplicaId, float] = field(default_factory=dict)

    def describe_in_sync(self) -> tuple[ReplicaId, ...]:
        return self.state.in_sync if self.state else ()


class FakeHost:
    """Takes proposals into a real store; `commit` makes them durable and committed."""

    sync_waiting = 0.0

    def __init__(self, directory: Path) -> None:
        self.config = Config("c", 0, ME)
        self.store = Store.open(
            directory,
            cluster_id="c",
            partition=0,
            options=StoreOptions(durability="memory", new_incarnation=lambda: "1"),
        )
        self.core = FakeCore()
        self.clock = FakeClock()
        self.versions = VersionClock(0)
        self.cut_version = 0
        self.writing = False
        self.recovery = SimpleNamespace(note="")
        self.watcher: Any = None
        self.damages: list[Exception] = []
        self.died: list[BaseException] = []
        self.proposed: list[list[Record]] = []

    def propose(self, data: bytes, first: int, last: int) -> None:
        assert first == self.core.end.index + 1
        self.store.append(data, trusted=True)
        self.core.end = Position(self.core.epoch, last)
        self.proposed.append([r for _, b in iter_batches(data) for r in iter_records(b)])

    def commit(self, index: int | None = None, *, enough: bool = True) -> None:
        """Everything, or up to an index."""
        self.store.flush()
        self.core.commit = self.core.end.index if index is None else index
        self.core.durable = self.core.end.index
        self.store.commit(self.core.commit)
        self.watcher.committed(self.core.commit, enough=enough)

    def damaged(self, error: Exception) -> None:
        self.damages.append(error)

    def die(self, error: BaseException) -> None:
        self.died.append(error)


@dataclass
class Asked:
    """A request's answers, as they come."""

    answers: list[list[Outcome] | None] = field(default_factory=list)

    @property
    def waits(self) -> bool:
        return not self.answers

    @property
    def outcomes(self) -> list[Outcome]:
        """The one answer."""
        assert len(self.answers) == 1, self.answers
        assert self.answers[0] is not None
        return self.answers[0]

    @property
    def codes(self) -> list[int]:
        return [int(o.code) for o in self.outcomes]


def make_service(host: FakeHost, slot_map: Callable[[], SlotMap | None] = lambda: SlotMap.even(1)) -> Service:
    """The service under test."""
    return Service(cast("Host", host), slot_map=slot_map)


def ask(service: Service, request: Request) -> Asked:
    """Submit; the answers gather in what is returned."""
    asked = Asked()
    service.submit(request, lambda o: asked.answers.append(None if o is None else list(o)))
    return asked
