"""The node's own request service on a simulated replica: `kvnode.service` as it is, with a store and a host of models.

So what clients see is decided by the shipped code: conditions over what is in flight (rule 9), the retry table (10),
answers after commit (8), versions (18). Only the turn of the event loop that gathers requests is the simulation's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from kvcommon.slotmap import SlotMap
from kvcommon.versions import VersionClock
from kvnode.core.types import Batch
from kvnode.operations import Code, Kind, Outcome, Request
from kvnode.service import MAX_IN_FLIGHT, Service
from kvnode.shell.host import Host
from kvstore.batch import Record, RecordType, encode_batch
from kvstore.sessions import Sessions
from tests.support import history

if TYPE_CHECKING:
    from tests.simulation.node import Process

MAP = SlotMap.even(1)
KINDS = {kind: Kind[kind.name] for kind in history.Kind}
RESULTS = {
    Code.OK: history.Result.OK,
    Code.NOT_FOUND: history.Result.NOT_FOUND,
    Code.ALREADY_EXISTS: history.Result.ALREADY_EXISTS,
    Code.VERSION_MISMATCH: history.Result.VERSION_MISMATCH,
}


@dataclass(frozen=True, slots=True)
class Call:
    """One operation of a request."""

    kind: history.Kind
    key: bytes
    value: bytes | None = None
    expected_version: int | None = None

    def __str__(self) -> str:
        value = "" if self.value is None else f" = {self.value.decode()}"
        condition = "" if self.expected_version is None else f" if version is {self.expected_version}"
        return f"{self.kind.value} {self.key.decode()}{value}{condition}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the node says: outcomes; or none, and then `maybe` whether the request may have been appended."""

    outcomes: tuple[history.Outcome, ...] = ()
    maybe: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """One attempt of a client's request."""

    client: int
    sequence: int
    age: float
    calls: tuple[Call, ...]
    answer: Callable[["Process", Answer], None]


class StoreModel:
    """What the service asks of a store: a fold of the disk's log up to what is committed (invariant 11)."""

    def __init__(self, process: "Process", applied: int) -> None:
        self._disk = process.disk
        self.applied = 0
        self.highest_version = 0
        self.sessions = Sessions()
        self.index: dict[bytes, Record] = {}
        self.places: dict[int, int] = {}  # index of each applied version
        for batch in self._disk.log:
            self.appended(batch)
        self.commit(applied)

    def appended(self, batch: Batch) -> None:
        """Versions go on above the whole log, committed or not (rule 18)."""
        versions = [record.version for record in self._disk.payloads.of(batch).records]
        self.highest_version = max(self.highest_version, *versions)

    def announce(self, data: bytes, folded: object) -> None:
        """What the real store need not read again is read from the log here."""

    def get(self, key: bytes) -> Record | None:
        return self.index.get(key)

    def commit(self, index: int) -> None:
        place = self._disk.place(self.applied + 1)
        while self.applied < index:
            batch = self._disk.log[place]
            for record in self._disk.payloads.of(batch).records:
                if self.applied < record.index <= index:
                    self._fold(record)
            self.applied = min(index, batch.last)
            place += 1

    def _fold(self, record: Record) -> None:
        self.places[record.version] = record.index
        if record.type == RecordType.PUT:
            self.index[record.key] = record
        elif record.type == RecordType.DELETE:
            self.index.pop(record.key, None)
        elif record.type == RecordType.SESSION:
            self.sessions.apply(record.key, record.value, record.version)


class HostModel:
    """What the service asks of its host."""

    def __init__(self, process: "Process", applied: int) -> None:
        self.process = process
        self.core, self.config = process.core, process.core.config
        self.clock = process
        self.store = StoreModel(process, applied)
        self.versions = VersionClock(self.config.partition, self.store.highest_version)
        self.watcher: Any = None
        self.cut_version = 0
        self.writing = False  # so more batches are under way at once than a log's thread lets be

    def propose(self, data: bytes, first: int, last: int) -> None:
        self.process.propose(Batch(self.core.epoch, first, last, data))

    def first_batch(self, epoch: int) -> Batch:
        """The epoch's first record, as the real host makes it."""
        self.versions.observe(self.store.highest_version)
        first = self.core.end.index + 1
        record = (int(RecordType.EPOCH), b"", b"", self.versions.next(self.process.wall_ms()), first)
        return Batch(epoch, first, first, encode_batch(epoch, first, self.core.commit, [record]))

    def die(self, error: BaseException) -> None:
        raise error

    def damaged(self, error: Exception) -> None:
        raise error


class GatheringService(Service):
    """The service; what arrives within a moment of virtual time is gathered."""

    def __init__(self, host: HostModel) -> None:
        super().__init__(cast("Host", host), slot_map=lambda: MAP)
        self._process = host.process
        self._model = host.store

    def _schedule(self) -> None:
        if not self._flush_scheduled and len(self._in_flight) < MAX_IN_FLIGHT:
            self._flush_scheduled = True
            process, rng = self._process, self._process.rng
            process.loop.after(0.0 if rng.random() < 0.6 else rng.random() * 0.01, process.deliver_gathered)

    def gathered(self) -> None:
        """The turn of the loop that flushes."""
        self._flush()

    def ask(self, asked: Asked) -> None:
        """A client's request, its answer checked and translated."""
        operations = [(KINDS[c.kind], c.key, c.value or b"", c.expected_version) for c in asked.calls]
        writes = any(c.kind is not history.Kind.GET for c in asked.calls)
        pair = (asked.client.to_bytes(16, "big"), asked.sequence) if writes else None

        def answer(outcomes: Sequence[Outcome] | None) -> None:
            asked.answer(self._process, self._translate(asked.calls, outcomes))

        self.submit(Request(list(operations), pair=pair, age=asked.age, size=64), answer)

    def _translate(self, calls: Sequence[Call], outcomes: Sequence[Outcome] | None) -> Answer:
        if outcomes is None or any(o.code == Code.OUTCOME_UNKNOWN for o in outcomes):
            return Answer(maybe=True)
        if not any(o.code in RESULTS for o in outcomes):
            return Answer()
        return Answer(tuple(self._check(call, o) for call, o in zip(calls, outcomes, strict=True)))

    def _check(self, call: Call, outcome: Outcome) -> history.Outcome:
        """One operation's outcome as histories have it; all that is shown must be committed (invariants 16, 21)."""
        result = RESULTS.get(Code(outcome.code))
        process = self._process
        if result is None:
            assert call.kind is history.Kind.GET, outcome
            return history.FAILED
        reads = call.kind is history.Kind.GET
        index = self._model.places.get(outcome.version, process.checker.top + 1) if outcome.version else 0
        if result is history.Result.OK and not reads:
            process.checker.acknowledged(process, index)
        else:
            process.checker.answered(process, index)
        absent = result is history.Result.NOT_FOUND
        value = outcome.value if reads and result is history.Result.OK else None
        return history.Outcome(result, None if absent else outcome.version, value)
