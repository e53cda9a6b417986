"""The request path of a node: typed batches in, outcomes out; it knows no door's protocol.

Writes of all doors and connections are gathered: what arrived in one turn of the event loop becomes one log batch, one
fsync and one frame per follower, while earlier batches are still under way. Conditions are evaluated on the index
overlaid with what is appended and not committed; every answer that depends on that waits for its commit (rule 9).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from operator import itemgetter

from kvcommon.clock import Clock
from kvcommon.errors import KVClusterError
from kvcommon.numbers import DEDUPLICATION_WINDOW, MAX_KEY_BYTES, MAX_VALUE_BYTES
from kvcommon.slotmap import SlotMap
from kvcommon.slots import slot_of
from kvcommon.versions import MAX_TAKEN, VersionClock, version_partition
from kvnode.core.types import Role
from kvnode.operations import Code, Kind, Operation, Outcome, ReadMode, Request
from kvnode.sessions import decode_outcomes, encode_outcomes
from kvnode.shell.host import Host
from kvnode.work import LOST, Puts, Transaction, Work
from kvstore.batch import RecordTuple, RecordType, encode_batch
from kvstore.errors import StoreError
from kvstore.sessions import Expired, session_key
from kvstore.store import Store

# Plain numbers for what is compared with every operation: comparing an IntEnum's member costs five times as much.
_GET, _PUT, _DELETE, _OK = int(Kind.GET), int(Kind.PUT), int(Kind.DELETE), int(Code.OK)
_SOUND = frozenset(map(int, Kind))
_PUT_RECORD, _DELETE_RECORD, _SESSION = int(RecordType.PUT), int(RecordType.DELETE), int(RecordType.SESSION)
_KIND, _KEY = itemgetter(0), itemgetter(1)  # of an operation

MAX_IN_FLIGHT = 8  # log batches that are not committed yet
MAX_LOG_BATCH_BYTES = 4 << 20
MAX_QUEUED_BYTES = 64 << 20  # of requests waiting or under way
MAX_ANSWER_BYTES = 4 << 20  # of values in the answer to one request; what is beyond is refused
FEW_PUTS = 4  # below this number columns cost more than they save
UNKNOWN_AFTER = 10.0  # seconds without a commit after which whoever waits for one is told that the outcome is unknown
LEASE_GRACE = 2.0  # seconds without a lease after which writes are refused: they would wait for nobody knows what

Answer = Callable[[Sequence[Outcome] | None], None]
"""Called once with one outcome per operation, or None: the writes' outcome is unknown, a repeat of the pair may tell."""


class _Pending(Work):
    """A request whose answer waits for a commit."""

    __slots__ = ("answers", "outcomes", "request")

    def __init__(self, request: Request, answer: Answer) -> None:
        super().__init__(request.size, request.deadline)
        self.request, self.answers = request, [answer]
        self.outcomes: list[Outcome] = []

    def settle(self, refused: Outcome | None) -> None:
        outcomes: Sequence[Outcome] | None = self.outcomes
        if refused is not None:
            outcomes = None if refused is LOST else [refused] * len(self.request.operations)
        for answer in self.answers:
            answer(outcomes)


@dataclass(slots=True)
class _LogBatch:
    """A log batch that is being made, or appended and not committed.

    `changes` is what it makes of its keys: version and value, None when deleted.
    """

    records: list[RecordTuple] = field(default_factory=list)
    waiting: list[Work] = field(default_factory=list)
    changes: dict[bytes, tuple[int, bytes | None]] = field(default_factory=dict)
    last: int = 0  # its last index
    begun: float = 0.0  # when it was appended

    def put(self, key: bytes, value: bytes, version: int) -> None:
        """Add a write of a key."""
        self.changes[key] = (version, value)
        self.records.append((_PUT_RECORD, key, value, version, 0))

    def put_all(self, keys: Sequence[bytes], values: Sequence[bytes], first_version: int) -> range:
        """Add writes with versions that follow each other, and return those: in columns, as most writes are these."""
        versions = range(first_version, first_version + len(keys))
        self.changes.update(zip(keys, zip(versions, values, strict=True), strict=True))
        self.records.extend(zip(repeat(_PUT_RECORD), keys, values, versions, repeat(0)))
        return versions

    def delete(self, key: bytes, version: int) -> None:
        """Add a deletion."""
        self.changes[key] = (version, None)
        self.records.append((_DELETE_RECORD, key, b"", version, 0))


class Service:
    """Serves one replica's partition."""

    def __init__(self, host: Host, *, slot_map: Callable[[], SlotMap | None]) -> None:
        self._host = host
        self._core = host.core
        self._store: Store = host.store
        self._clock: Clock = host.clock
        self._versions: VersionClock = host.versions
        self._partition = host.config.partition
        self._slot_map = slot_map
        self._queue: deque[Work] = deque()
        self._queued_bytes = 0
        self._flush_scheduled = False
        self._in_flight: deque[_LogBatch] = deque()  # not committed
        self._making = _LogBatch()  # in `_flush_queue`, empty otherwise
        self._sessions: dict[tuple[bytes, int], _Pending] = {}  # pairs under way
        self.disk_full = False
        self.closing = False
        host.watcher = self

    # --- the way in --------------------------------------------------------------------------------------------------

    def submit(self, request: Request, answer: Answer) -> None:
        """Do the request; `answer` is called once, perhaps before this returns."""
        if request.observed and self._unbelievable(request):
            answer([_too_far_ahead(request.observed)] * len(request.operations))
            return
        invalid = [invalid_operation(op) for op in request.operations]
        if any(invalid):
            request, answer = _without_invalid(request, invalid, answer)
        refused = self._refusal(request)
        if refused is not None:
            if (
                request.pair is None
                or not self._core.accepting
                or not self._answer_repeat(request, request.pair, answer)
            ):
                answer([refused] * len(request.operations))
            return
        if all(map(_GET.__eq__, map(_KIND, request.operations))):
            answer(self._read(request))
        else:
            self._submit_writes(request, answer)

    async def call(self, request: Request) -> Sequence[Outcome] | None:
        """`submit` for one who waits."""
        done: asyncio.Future[Sequence[Outcome] | None] = asyncio.get_running_loop().create_future()

        def answer(outcomes: Sequence[Outcome] | None) -> None:
            if not done.done():
                done.set_result(outcomes)

        self.submit(request, answer)
        return await done

    def _unbelievable(self, request: Request) -> bool:
        """Whether the observed version is too far ahead of this node's clock (rule 18).

        Not one that is in the log: it was given here, by a leader whose clock was ahead. Nor that of a read of any age: it
        changes nothing, and is answered by what this replica has.
        """
        if request.observed <= self._store.highest_version:
            return False
        if request.read_mode != ReadMode.LINEARIZABLE and all(op[0] == Kind.GET for op in request.operations):
            return False
        return VersionClock.too_far_ahead(request.observed, self._clock.wall_ms())

    def _refusal(self, request: Request) -> Outcome | None:
        """Why nothing of the request can be done here; what was done here before the slot moved is known all the same."""
        slot_map = self._slot_map()
        if slot_map is None:
            return _NO_MAP
        owners, mine = slot_map.owners, self._partition
        for slot in map(slot_of, map(_KEY, request.operations)):
            if owners[slot] != mine:
                return self._elsewhere(slot, owners[slot])
        return None

    def _elsewhere(self, slot: int, owner: int) -> Outcome:
        text = f"slot {slot} belongs to partition {owner}, not to {self._partition}; nothing of the batch was done"
        return Outcome(Code.MOVED, message=text)

    # --- reads -------------------------------------------------------------------------------------------------------

    def _read(self, request: Request) -> list[Outcome]:
        unfit = self._unfit_to_read(request)
        if unfit is not None:
            return [unfit] * len(request.operations)
        outcomes: list[Outcome] = []
        size = 0
        for op in request.operations:
            outcome = self._get(op[1]) if size < MAX_ANSWER_BYTES else _TOO_LONG
            size += len(outcome[2])
            outcomes.append(outcome)
        return outcomes

    def _unfit_to_read(self, request: Request) -> Outcome | None:
        """Why this replica can't read as fresh as asked; `now` is taken after the request was read (rule 5)."""
        now = self._clock.now()
        if self._core.role is Role.FAILED:
            return Outcome(Code.UNAVAILABLE, message="this replica failed and waits to be rebuilt; ask another")
        leased = now < self._core.lease_until
        if request.read_mode == ReadMode.LINEARIZABLE:
            return None if leased else self._not_serving("reads")
        if leased:
            return None
        if not self._core.whole:
            return Outcome(
                Code.UNAVAILABLE, message="this replica has only a part of its leader's log yet; ask another"
            )
        ours = bool(request.observed) and version_partition(request.observed) == self._partition
        highest = self._store.highest_version  # of what was cut, too, until something newer was appended
        unsure = request.observed > highest or highest <= self._host.cut_version
        if ours and (unsure or self._store.applied < self._core.end.index):
            return Outcome(Code.TOO_STALE, message="this replica may not have applied observed_version yet")
        if request.read_mode == ReadMode.BOUNDED and now - self._core.fresh_at > request.max_lag:
            text = f"this replica can't show that it is within {request.max_lag * 1000:.0f} ms of its leader"
            return Outcome(Code.TOO_STALE, message=text)
        return None

    def _get(self, key: bytes) -> Outcome:
        try:
            record = self._store.get(key)
        except (StoreError, OSError) as e:
            return self._damaged(e)
        return Outcome(Code.NOT_FOUND) if record is None else Outcome(_OK, record[3], record[2])

    def _damaged(self, error: Exception) -> Outcome:
        """What is answered when the log can't be read; this replica then goes."""
        self._host.damaged(error)
        return Outcome(
            Code.INTERNAL, message=f"this replica's log can't be read; ask again, another will lead: {error}"
        )

    def _not_serving(self, what: str) -> Outcome:
        """A leader that can't serve right now, or no leader."""
        if self._core.role is Role.LEADER and not self.closing:
            return Outcome(Code.UNAVAILABLE, message=f"the leader can't serve {what} right now; try again")
        return Outcome(Code.NOT_LEADER, message=f"{self._host.config.me.replica.pod} does not lead this partition")

    # --- one slot: what doors with single commands ask -----------------------------------------------------------------

    def unfit(self, slot: int | None, *, max_lag: float | None = None) -> Outcome | None:
        """Why a slot (None: no certain one) can't be read here right now.

        None: `get` may be called until the caller gives the loop back. Linearizable, or with `max_lag` no further
        behind than that many seconds.
        """
        if slot is not None:
            slot_map = self._slot_map()
            if slot_map is None:
                return _NO_MAP
            owner = slot_map.owners[slot]
            if owner != self._partition:
                return self._elsewhere(slot, owner)
        if max_lag is None:
            return self._unfit_to_read(_LINEARIZABLE)
        return self._unfit_to_read(Request([], read_mode=ReadMode.BOUNDED, max_lag=max_lag))

    def get(self, key: bytes) -> bytes | None:
        """A key's value, applied here; None: it has none. Raises DamagedError, and this replica then goes."""
        try:
            record = self._store.get(key)
        except (StoreError, OSError) as e:
            raise DamagedError(self._damaged(e)) from e
        return None if record is None else record[2]

    def transact(self, slot: int, work: Work) -> None:
        """Do the work, all of whose keys are in this slot and valid; it is settled once, perhaps before this returns."""
        slot_map = self._slot_map()
        if slot_map is None:
            work.settle(_NO_MAP)
        elif slot_map.owners[slot] != self._partition:
            work.settle(self._elsewhere(slot, slot_map.owners[slot]))
        else:
            refused = self._unfit_to_write(work.size)
            if refused is not None:
                work.settle(refused)
            else:
                self._enqueue(work)

    def add_put(self, slot: int, puts: Puts, key: bytes, value: bytes) -> bool:
        """Add a write to queued ones that are not begun, as `transact` would take it; False: it can't be."""
        slot_map, size = self._slot_map(), len(key) + len(value)
        if puts.begun or slot_map is None or slot_map.owners[slot] != self._partition:
            return False
        if self._unfit_to_write(size) is not None:
            return False
        puts.pairs.append((key, value))
        puts.size += size
        self._queued_bytes += size
        return True

    # --- writes ------------------------------------------------------------------------------------------------------

    def _submit_writes(self, request: Request, answer: Answer) -> None:
        refused = self._unfit_to_write(request.size)
        if refused is not None:
            answer([refused] * len(request.operations))
            return
        if request.pair is not None and self._answer_repeat(request, request.pair, answer):
            return
        pending = _Pending(request, answer)
        if request.pair is not None:
            self._sessions[request.pair] = pending
        self._enqueue(pending)

    def _enqueue(self, work: Work) -> None:
        self._queue.append(work)
        self._queued_bytes += work.size
        self._schedule()

    def _unfit_to_write(self, size: int) -> Outcome | None:
        core = self._core
        if not core.accepting or self._clock.now() > core.lease_until + LEASE_GRACE:
            return self._not_serving("writes")
        if not core.enough:
            need, have = core.state.min_in_sync if core.state else 0, len(core.describe_in_sync())
            return Outcome(Code.TOO_FEW_REPLICAS, message=f"{have} replicas in sync, minInSync is {need}")
        if self._queued_bytes + size > MAX_QUEUED_BYTES:
            text = (
                f"{self._queued_bytes} bytes of requests are waiting; at most {MAX_QUEUED_BYTES} may. Send less at once"
            )
            return Outcome(Code.RESOURCE_EXHAUSTED, message=text)
        if self.disk_full:
            return Outcome(Code.RESOURCE_EXHAUSTED, message="the leader's disk is nearly full; reads go on")
        return None

    def _answer_repeat(self, request: Request, pair: tuple[bytes, int], answer: Answer) -> bool:
        """Answer a batch that was here before with what came of it then (rule 10)."""
        under_way = self._sessions.get(pair)
        if under_way is not None:
            if len(under_way.request.operations) != len(request.operations):
                answer(_other_batch(request, len(under_way.request.operations)))
                return True
            under_way.answers.append(answer)
            return True
        first = self._store.sessions.lookup(*pair)
        if isinstance(first, Expired) or (first is None and request.age > DEDUPLICATION_WINDOW):
            text = "a repeat past the deduplication window; what came of the first is no longer known"
            answer([Outcome(Code.OUTCOME_UNKNOWN, message=text)] * len(request.operations))
            return True
        if first is None:
            return False
        before = decode_outcomes(first)
        if len(before) != len(request.operations):
            answer(_other_batch(request, len(before)))
            return True
        answer(self._with_reads(request, before))
        return True

    def _with_reads(self, request: Request, before: Sequence[Outcome | None]) -> list[Outcome]:
        """A repeat's outcomes. A Get is read again, unless the batch wrote its key afterwards: it would see that."""
        unfit = self._unfit_to_read(request)
        outcomes: list[Outcome] = []
        for i, (op, out) in enumerate(zip(request.operations, before, strict=True)):
            if out is not None:
                outcomes.append(out)
            elif unfit is not None:
                outcomes.append(unfit)
            elif any(later[1] == op[1] and later[0] != Kind.GET for later in request.operations[i + 1 :]):
                text = "the batch was applied before; what this key held before it can't be read again"
                outcomes.append(Outcome(Code.UNAVAILABLE, message=text))
            else:
                outcomes.append(self._get(op[1]))
        return outcomes

    def _schedule(self) -> None:
        if not self._flush_scheduled and len(self._in_flight) < MAX_IN_FLIGHT:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Make one log batch of what is queued; what goes wrong here would leave callers without an answer."""
        try:
            self._flush_queue()
        except Exception as e:
            self._host.die(e)
            raise

    def _flush_queue(self) -> None:
        self._flush_scheduled = False
        if not self._queue or len(self._in_flight) >= MAX_IN_FLIGHT:
            return
        if not self._core.accepting:
            self._refuse_queue(self._not_serving("writes"))
            return
        first = self._core.end.index + 1
        batch = _LogBatch()
        self._making = batch
        size, now, wall = 0, self._clock.now(), self._clock.wall_ms()
        while self._queue and size < MAX_LOG_BATCH_BYTES:
            work = self._queue.popleft()
            if now >= work.deadline:
                self._settle(work, _TOO_LATE)
                continue
            if isinstance(work, _Pending):
                self._evaluate(work, wall)
            elif isinstance(work, Puts):
                self._evaluate_puts(work, wall)
            elif isinstance(work, Transaction):
                self._evaluate_transaction(work, wall)
            size += work.size
            batch.waiting.append(work)
        self._making = _LogBatch()
        if batch.records:
            data = encode_batch(self._core.epoch, first, self._core.commit, batch.records)
            batch.last = first + len(batch.records) - 1
            batch.records = []
            batch.begun = now
            self._in_flight.append(batch)
            self._host.propose(data, first, batch.last)
        else:
            self._answer_without_records(batch.waiting)
        if self._queue:
            self._schedule()

    def _answer_without_records(self, waiting: list[Work]) -> None:
        """Refusals only: they need the lease, as a read does, and wait for what they depend on.

        An older batch's commit alone would not do: it may have been acknowledged before another took over.
        """
        if self._clock.now() >= self._core.lease_until:
            for work in waiting:
                self._settle(work, self._not_serving("writes"))
        elif self._in_flight:
            self._in_flight[-1].waiting.extend(waiting)
        else:
            for work in waiting:
                self._settle(work, None)

    def _evaluate(self, pending: _Pending, wall: int) -> None:
        """Decide each operation's outcome on index and overlay, and add the records that it makes."""
        request = pending.request
        if request.observed:
            self._versions.observe(request.observed)
        if all(op[0] == _PUT and op[3] is None for op in request.operations):  # nothing can refuse them
            _, keys, values, _ = zip(*request.operations, strict=True)
            versions = self._making.put_all(keys, values, self._versions.take(len(keys), wall))
            pending.outcomes = [Outcome(_OK, version) for version in versions]
        else:
            pending.outcomes = self._evaluate_each(request.operations, wall)
        if request.pair is not None:  # also when all was refused: a late repeat must not be done after all
            result = encode_outcomes(request.operations, pending.outcomes)
            row = (_SESSION, session_key(*request.pair), result, self._versions.next(wall), 0)
            self._making.records.append(row)

    def _evaluate_each(self, operations: Sequence[Operation], wall: int) -> list[Outcome]:
        outcomes: list[Outcome] = []
        read = 0
        for kind, key, value, expected in operations:
            if kind == _GET and read >= MAX_ANSWER_BYTES:
                outcomes.append(_TOO_LONG)
                continue
            if kind != _PUT or expected is not None:
                refused = self._evaluate_condition(kind, key, expected)
                if refused is not None:
                    read += len(refused[2])
                    outcomes.append(refused)
                    continue
            version = self._versions.next(wall)
            if kind == _DELETE:
                self._making.delete(key, version)
            else:
                self._making.put(key, value, version)
            outcomes.append(Outcome(_OK, version))
        return outcomes

    def _overlaid(self, key: bytes) -> tuple[int, bytes | None] | None:
        """What the newest of the batches being made and in flight makes of a key; None: nothing (rule 9)."""
        over = self._making.changes.get(key)
        if over is None:
            for batch in reversed(self._in_flight):
                over = batch.changes.get(key)
                if over is not None:
                    break
        return over

    def _evaluate_condition(self, kind: int, key: bytes, expected: int | None) -> Outcome | None:
        """A Get's outcome, or why a write is refused; None: it may go on."""
        over = self._overlaid(key)
        if over is not None:
            found, value = over if over[1] is not None else (0, b"")
        else:
            try:
                record = self._store.get(key)
            except (StoreError, OSError) as e:
                return self._damaged(e)
            found, value = (record[3], record[2]) if record is not None else (0, b"")
        if kind == _GET:
            return Outcome(_OK, found, value or b"") if found else Outcome(Code.NOT_FOUND)
        if kind == Kind.CREATE and found:
            return Outcome(Code.ALREADY_EXISTS, found)
        if kind in (Kind.UPDATE, Kind.DELETE) and not found:
            return Outcome(Code.NOT_FOUND)
        if expected is not None and expected != found:
            return Outcome(Code.VERSION_MISMATCH, found, message=f"expected version {expected}, found {found}")
        return None

    def _evaluate_puts(self, puts: Puts, wall: int) -> None:
        """Add the records of writes without conditions."""
        puts.begun = True
        if len(puts.pairs) < FEW_PUTS:
            for key, value in puts.pairs:
                self._making.put(key, value, self._versions.next(wall))
            return
        for at in range(0, len(puts.pairs), MAX_TAKEN):
            keys, values = zip(*puts.pairs[at : at + MAX_TAKEN], strict=True)
            self._making.put_all(keys, values, self._versions.take(len(keys), wall))

    def _evaluate_transaction(self, work: Transaction, wall: int) -> None:
        """Let it decide on index and overlay, and add the records that it makes: all of them in this batch, or none."""
        try:
            writes, work.result = work.decide(self._read_overlaid)
        except DamagedError as e:
            work.refused = e.outcome
            return
        size = sum(len(key) + len(value or b"") for key, value in writes)
        if size > MAX_LOG_BATCH_BYTES:
            text = f"an atomic group of {size} bytes; at most {MAX_LOG_BATCH_BYTES} are possible"
            work.refused = Outcome(Code.INVALID_ARGUMENT, message=text)
            return
        if size > work.size:  # what it made of what was there is in memory until it is committed
            self._queued_bytes += size - work.size
            work.size = size
        for key, value in writes:
            version = self._versions.next(wall)
            if value is None:
                self._making.delete(key, version)
            else:
                self._making.put(key, value, version)

    def _read_overlaid(self, key: bytes) -> bytes | None:
        """A key's value as of the end of the log. Raises DamagedError."""
        over = self._overlaid(key)
        return over[1] if over is not None else self.get(key)

    # --- the way out -------------------------------------------------------------------------------------------------

    def committed(self, index: int, *, enough: bool) -> None:
        """Answer whoever waited for what is committed and applied now."""
        in_flight = self._in_flight
        while in_flight and in_flight[0].last <= index:
            for work in in_flight.popleft().waiting:
                self._settle(work, None if enough else _TOO_FEW_HAVE_IT)
        if self._queue:
            self._schedule()

    def expire(self) -> None:
        """Tell those who have waited for a commit for too long that they must not go on; to be called every second.

        A leader that is cut off from everything stays one in its own eyes, and nothing that it has begun is settled. What
        was told unknown may yet be committed: a repeat of the pair waits for that.
        """
        now = self._clock.now()
        if not self._in_flight or now - self._in_flight[0].begun < UNKNOWN_AFTER:
            return
        for batch in self._in_flight:
            if now - batch.begun >= UNKNOWN_AFTER:
                for work in batch.waiting:
                    if isinstance(work, _Pending):
                        work.settle(LOST)
                        work.answers = []
                    else:
                        self._settle(work, LOST)
                batch.waiting = [work for work in batch.waiting if isinstance(work, _Pending)]
        late = [work for work in self._queue if now >= work.deadline]
        self._queue = deque(work for work in self._queue if now < work.deadline)
        for work in late:
            self._settle(work, _TOO_LATE)

    def role_changed(self, role: Role, epoch: int) -> None:  # noqa: ARG002 - the signature is Watcher's
        """What was proposed and is not committed has an unknown outcome; what was only queued was not done."""
        in_flight = list(self._in_flight)
        self._in_flight.clear()
        for batch in in_flight:
            for work in batch.waiting:
                self._settle(work, LOST)
        self._refuse_queue(self._not_serving("writes"))

    def _refuse_queue(self, why: Outcome) -> None:
        queue = list(self._queue)
        self._queue.clear()
        for work in queue:
            self._settle(work, why)

    def _settle(self, work: Work, refused: Outcome | None) -> None:
        self._queued_bytes -= work.size
        if isinstance(work, _Pending):
            if work.request.pair is not None:
                self._sessions.pop(work.request.pair, None)
        elif isinstance(work, Transaction) and work.refused is not None:
            refused = work.refused
        work.settle(refused)


class DamagedError(KVClusterError):
    """A read failed because this replica's log can't be read; `outcome` is the answer."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.message)
        self.outcome = outcome


_LINEARIZABLE = Request([])
_NO_MAP = Outcome(Code.UNAVAILABLE, message="this node does not know the map yet; try again")
_TOO_LATE = Outcome(Code.DEADLINE_EXCEEDED, message="the deadline passed before the write was begun")
_TOO_FEW_HAVE_IT = Outcome(
    Code.OUTCOME_UNKNOWN, message="fewer than minInSync replicas have the write; it may or may not survive"
)
"""Committed, but by fewer replicas than minInSync asks for (rule 8)."""
_TOO_LONG = Outcome(
    Code.RESOURCE_EXHAUSTED, message=f"the answer's values are beyond {MAX_ANSWER_BYTES} bytes; ask for fewer at once"
)


def invalid_operation(op: Operation) -> Outcome | None:
    """What is wrong with an operation by itself, whoever gets it."""
    kind, key, value, expected = op
    if 0 < len(key) <= MAX_KEY_BYTES and len(value) <= MAX_VALUE_BYTES and kind in _SOUND and expected is None:
        return None
    if not 0 < len(key) <= MAX_KEY_BYTES:
        text = f"a key of {len(key)} bytes; 1 to {MAX_KEY_BYTES} are possible"
    elif len(value) > MAX_VALUE_BYTES:
        text = f"a value of {len(value)} bytes; at most {MAX_VALUE_BYTES} are possible"
    elif not Kind.GET <= kind <= Kind.DELETE:
        text = f"operation kind {kind} is unknown; GET, PUT, CREATE, UPDATE and DELETE are 1 to 5"
    elif kind == Kind.CREATE and expected is not None:
        text = f"expected_version {expected} with Create: a key that must not exist has no version; leave it out"
    else:
        return None
    return Outcome(Code.INVALID_ARGUMENT, message=text)


def _without_invalid(request: Request, invalid: Sequence[Outcome | None], answer: Answer) -> tuple[Request, Answer]:
    """The request without its invalid operations, and an answer that puts their outcomes back in place."""

    def merged(outcomes: Sequence[Outcome] | None) -> None:
        rest = iter(outcomes or ())
        answer(None if outcomes is None else [bad or next(rest) for bad in invalid])

    valid = [op for op, bad in zip(request.operations, invalid, strict=True) if bad is None]
    return replace(request, operations=valid), merged


def _too_far_ahead(observed: int) -> Outcome:
    text = f"observed_version {observed} is more than 1 s ahead of this node's clock"
    return Outcome(Code.INVALID_ARGUMENT, message=text)


def _other_batch(request: Request, operations: int) -> list[Outcome]:
    """A pair that stood for another batch before."""
    sequence = request.pair[1] if request.pair else 0
    text = f"sequence {sequence} was used for another batch, of {operations} operations; count sequences up"
    return [Outcome(Code.INVALID_ARGUMENT, message=text)] * len(request.operations)
