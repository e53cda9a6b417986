"""A model of the node's request path: conditions over what is in flight, the retry table, answers that wait for commit.

It keeps rules 8, 9, 10, 16 and 18 in the simplest way that can be right, so that what the checks find is the core's.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvcommon.versions import VersionClock
from kvnode.core.types import Batch

from tests.simulation.disk import Payload, Record
from tests.support.history import Kind, Outcome, Result

if TYPE_CHECKING:
    from tests.simulation.node import Process


@dataclass(frozen=True, slots=True)
class Cell:
    """A key's newest record; no value: absent."""

    value: bytes | None
    version: int
    index: int


NOTHING = Cell(None, 0, 0)


@dataclass(frozen=True, slots=True)
class Call:
    """One operation of a request."""

    kind: Kind
    key: bytes
    value: bytes | None = None
    expected_version: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the node says: outcomes; or none, and then `maybe` whether the request may have been appended."""

    outcomes: tuple[Outcome, ...] = ()
    maybe: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One attempt of a client's request: a single get, or writes with (client, sequence)."""

    client: int
    sequence: int
    calls: tuple[Call, ...]
    answer: Callable[["Process", Answer], None]

    @property
    def reads(self) -> bool:
        return self.calls[0].kind is Kind.GET


REFUSED = Answer()
UNKNOWN = Answer(maybe=True)


def judge(call: Call, cell: Cell) -> Outcome | None:
    """Why a write is refused in this state; None when it is to be done."""
    present = cell.value is not None
    if call.kind is Kind.CREATE and present:
        return Outcome(Result.ALREADY_EXISTS, cell.version)
    if call.kind in (Kind.UPDATE, Kind.DELETE) and not present:
        return Outcome(Result.NOT_FOUND)
    if call.expected_version is not None and call.expected_version != (cell.version if present else 0):
        return Outcome(Result.VERSION_MISMATCH, cell.version if present else 0)
    return None


class Service:
    """Requests of one process. `index` and `table` hold what is applied, `overlay` what is appended beyond that."""

    def __init__(self, process: "Process", applied: int) -> None:
        self.process = process
        self.index: dict[bytes, Cell] = {}
        self.table: dict[tuple[int, int], tuple[int, tuple[Outcome, ...]]] = {}
        self.overlay: dict[bytes, Cell] = {}
        self.in_flight: dict[tuple[int, int], tuple[int, tuple[Outcome, ...]]] = {}
        self.waiting: deque[tuple[int, Request, tuple[Outcome, ...]]] = deque()
        self.gathered: list[Request] = []
        self.applied = 0
        self.clock = VersionClock(0)
        self.apply(applied)

    # --- the log -----------------------------------------------------------------------------------------------------

    def apply(self, index: int) -> None:
        """Fold committed records into the index."""
        disk = self.process.disk
        place = disk.place(self.applied + 1)
        while self.applied < index:
            batch = disk.log[place]
            for record in disk.payloads.of(batch).records:
                if self.applied < record.index <= index:
                    self._fold(record)
            self.applied = min(index, batch.last)
            place += 1

    def _fold(self, record: Record) -> None:
        if record.kind in ("put", "delete"):
            self.index[record.key] = Cell(record.value, record.version, record.index)
        elif record.request is not None:
            self.table[record.request] = (record.index, record.results)  # type: ignore[assignment]

    def committed(self, index: int, *, enough: bool) -> None:
        """Apply, then answer who waited for it (rule 9); with too few copies the outcome is unknown (rule 8)."""
        self.apply(index)
        for key in [k for k, cell in self.overlay.items() if cell.index <= index]:
            del self.overlay[key]
        while self.waiting and self.waiting[0][0] <= index:
            at, request, outcomes = self.waiting.popleft()
            self.in_flight.pop((request.client, request.sequence), None)
            self._answer(request, at, outcomes, enough=enough)

    def role_changed(self) -> None:
        """Whoever waits for a commit of an earlier epoch is told that it is unknown."""
        waiting, self.waiting = self.waiting, deque()
        gathered, self.gathered = self.gathered, []
        self.overlay.clear()
        self.in_flight.clear()
        for _, request, _ in waiting:
            request.answer(self.process, UNKNOWN)
        for request in gathered:
            request.answer(self.process, REFUSED)

    def first_batch(self, epoch: int) -> Batch:
        """The epoch's first record; versions go on above the whole log (rule 18)."""
        disk = self.process.disk
        for batch in disk.log:
            for record in disk.payloads.of(batch).records:
                self.clock.observe(record.version)
        first = self.process.core.end.index + 1
        payload = Payload((Record(first, "epoch"),), self.process.core.commit)
        return Batch(epoch, first, first, disk.payloads.make(payload))

    # --- requests ----------------------------------------------------------------------------------------------------

    def request(self, request: Request) -> None:
        """Read, gather or refuse."""
        process = self.process
        if request.reads:
            self._read(request)
        elif not process.core.accepting:
            request.answer(process, REFUSED)
        else:
            self.gathered.append(request)
            if len(self.gathered) == 1:
                wait = 0.0 if process.loop.rng.random() < 0.6 else process.loop.rng.random() * 0.01
                process.loop.after(wait, process.deliver_gathered)

    def _read(self, request: Request) -> None:
        process = self.process
        if process.clock.now() >= process.core.lease_until:
            request.answer(process, REFUSED)
            return
        cell = self.index.get(request.calls[0].key, NOTHING)
        process.checker.answered(process, cell.index)
        outcome = Outcome(Result.NOT_FOUND) if cell.value is None else Outcome(Result.OK, cell.version, cell.value)
        request.answer(process, Answer((outcome,)))

    def gather(self) -> Batch | None:
        """One batch of everything that came in."""
        requests, self.gathered = self.gathered, []
        records: list[Record] = []
        core = self.process.core
        first = core.end.index + 1
        for request in requests:
            if core.accepting:
                self._append(request, first, records)
            else:
                request.answer(self.process, REFUSED)
        if not records:
            return None
        payload = Payload(tuple(records), core.commit)
        return Batch(core.epoch, first, first + len(records) - 1, self.process.disk.payloads.make(payload))

    def _append(self, request: Request, first: int, records: list[Record]) -> None:
        process = self.process
        pair = (request.client, request.sequence)
        if pair in self.table:
            at, outcomes = self.table[pair]
            self._answer(request, at, outcomes, enough=process.core.enough)
            return
        if pair in self.in_flight:
            at, outcomes = self.in_flight[pair]
            self._wait(at, request, outcomes)
            return
        if not process.core.enough:
            request.answer(process, REFUSED)
            return
        outcomes = tuple(self._evaluate(call, first, records) for call in request.calls)
        at = first + len(records)
        records.append(Record(at, "session", request=pair, results=outcomes))
        self.in_flight[pair] = (at, outcomes)
        self._wait(at, request, outcomes)

    def _wait(self, at: int, request: Request, outcomes: tuple[Outcome, ...]) -> None:
        place = len(self.waiting)
        while place and self.waiting[place - 1][0] > at:
            place -= 1
        self.waiting.insert(place, (at, request, outcomes))

    def _evaluate(self, call: Call, first: int, records: list[Record]) -> Outcome:
        cell = self.overlay.get(call.key) or self.index.get(call.key, NOTHING)
        refusal = judge(call, cell)
        if refusal is not None:
            return refusal
        version = self.clock.next(self.process.machine.wall_ms())
        value = None if call.kind is Kind.DELETE else call.value
        at = first + len(records)
        records.append(Record(at, "put" if value is not None else "delete", call.key, value, version))
        self.overlay[call.key] = Cell(value, version, at)
        return Outcome(Result.OK, version)

    def _answer(self, request: Request, at: int, outcomes: tuple[Outcome, ...], *, enough: bool) -> None:
        process = self.process
        if not enough:
            request.answer(process, UNKNOWN)
            return
        process.checker.acknowledged(process, at)
        request.answer(process, Answer(outcomes))
