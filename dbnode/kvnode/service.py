"""The request path of a node: typed batches in, outcomes out; it knows no door's protocol.

Writes of all doors and connections are gathered: what arrived while the log's thread was at work, in one turn of the
event loop, or, of single writes, in turns that follow each other (`kvnode.gathering`), becomes one log batch, one fsync
and one frame per follower, while earlier batches are still on their way.
Conditions are evaluated on the index overlaid with what is appended and not committed; every answer that depends on that
waits for its commit (rule 9).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from operator import itemgetter

from kvcommon.clock import Clock
from kvcommon.numbers import DEDUPLICATION_WINDOW
from kvcommon.slotmap import SlotMap
from kvcommon.slots import slot_of
from kvcommon.versions import VersionClock
from kvnode.core.types import Role
from kvnode.evaluation import MAX_LOG_BATCH_BYTES, Evaluation, LogBatch
from kvnode.gathering import Gathering
from kvnode.operations import Code, Columns, Kind, Operation, Outcome, ReadMode, Request
from kvnode.reading import LINEARIZABLE, Reads, RefusedError
from kvnode.requests import Answer, other_batch, too_far_ahead, what_is_invalid, without_invalid
from kvnode.sessions import decode_outcomes
from kvnode.shell.host import Host
from kvnode.work import LOST, Pending, Puts, Transaction, Work
from kvstore.batch import Record
from kvstore.errors import StoreError
from kvstore.sessions import Expired
from kvstore.store import Store

_GET = int(Kind.GET)  # a plain number: comparing an IntEnum's member costs five times as much
_KIND, _KEY = itemgetter(0), itemgetter(1)  # of an operation

MAX_IN_FLIGHT = 8  # log batches that are not committed yet
MAX_QUEUED_BYTES = 64 << 20  # of requests waiting or under way
MAX_PUTS_BYTES = 256 << 10  # of single writes that are queued as one
PUTS_SECONDS = 1.0  # that a single write's deadline may be later than that of those it is queued with
UNKNOWN_AFTER = 10.0  # seconds without a commit after which whoever waits for one is told that the outcome is unknown
LEASE_GRACE = 2.0  # seconds without a lease after which writes are refused: they would wait for nobody knows what


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
        self._gathering = Gathering()
        self._in_flight: deque[LogBatch] = deque()  # not committed
        self._reads = Reads(host, closing=lambda: self.closing)
        self._evaluation = Evaluation(self._reads, self._versions, self._in_flight)
        self._sessions: dict[tuple[bytes, int], Pending] = {}  # pairs under way
        self.disk_full = False
        self.closing = False
        host.watcher = self

    # --- the way in --------------------------------------------------------------------------------------------------

    def submit(self, request: Request, answer: Answer) -> None:
        """Do the request; `answer` is called once, perhaps before this returns."""
        if request.observed and self._unbelievable(request):
            answer([too_far_ahead(request.observed)] * len(request.operations))
            return
        invalid = what_is_invalid(request.operations)
        if invalid:
            request, answer = without_invalid(request, invalid, answer)
        refused = self._refusal(request)
        if refused is not None:
            if (
                request.pair is None
                or not self._core.accepting
                or not self._answer_repeat(request, request.pair, answer)
            ):
                answer([refused] * len(request.operations))
            return
        if _are_reads(request.operations):
            answer(self._reads.answer(request))
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
        operations = request.operations
        keys = operations.keys if type(operations) is Columns else list(map(_KEY, operations))
        owners = slot_map.owners_of(keys)
        if owners.count(self._partition) == len(owners):
            return None
        key, owner = next((k, o) for k, o in zip(keys, owners, strict=True) if o != self._partition)
        return self._elsewhere(slot_of(key), owner)

    def _elsewhere(self, slot: int, owner: int) -> Outcome:
        text = f"slot {slot} belongs to partition {owner}, not to {self._partition}; nothing of the batch was done"
        return Outcome(Code.MOVED, message=text)

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
            return self._reads.unfit(LINEARIZABLE)
        return self._reads.unfit(Request([], read_mode=ReadMode.BOUNDED, max_lag=max_lag))

    def get(self, key: bytes) -> bytes | None:
        """A key's value, applied here; None: it has none. Raises DamagedError, and this replica then goes."""
        try:
            record = self._store.get(key)
        except (StoreError, OSError) as e:
            raise self._reads.damage(e) from e
        return None if record is None else record[2]

    def read(self, slot: int, key: bytes, now: float) -> bytes | None:
        """A key's value, linearizable; None: it has none. Raises RefusedError.

        `now` was read after the request was (rule 5).
        """
        if not self._serves(slot, now):
            refused = self.unfit(slot)
            if refused is not None:
                raise RefusedError(refused)
        return self.get(key)

    def record(self, key: bytes) -> Record | None:
        """A key's record, linearizable. None: it has none, or something is in the way, which `submit` tells."""
        if not self._serves(slot_of(key), self._clock.now()):
            return None
        try:
            return self._store.get(key)
        except (StoreError, OSError):
            return None

    def _serves(self, slot: int, now: float) -> bool:
        """Whether linearizable reads of a slot may be answered here at this time."""
        slot_map = self._slot_map()
        return slot_map is not None and slot_map.owners[slot] == self._partition and now < self._core.lease_until

    def read_many(self, keys: Sequence[bytes], now: float) -> list[bytes | None] | None:
        """`read` of each key; None: something is in the way of one, so each is to be read by itself."""
        slot_map = self._slot_map()
        if slot_map is None or now >= self._core.lease_until:
            return None
        if slot_map.owners_of(keys).count(self._partition) < len(keys):
            return None
        try:
            records = self._store.get_many(keys)
        except (StoreError, OSError):
            return None  # what is wrong is said where each is read by itself
        return [None if record is None else record[2] for record in records]

    def transact(self, slot: int, work: Work) -> None:
        """Do the work, all of whose keys are in this slot and valid; it is settled once, perhaps before this returns."""
        slot_map = self._slot_map()
        if slot_map is None:
            work.settle(_NO_MAP)
        elif slot_map.owners[slot] != self._partition:
            work.settle(self._elsewhere(slot, slot_map.owners[slot]))
        else:
            refused = self._unfit_to_write(work.size, self._clock.now())
            if refused is not None:
                work.settle(refused)
            else:
                self._gathering.came(1)
                self._enqueue(work)

    def put(self, slot: int, key: bytes, value: bytes, now: float, deadline: float) -> Puts | Outcome:
        """Queue a write without a condition, together with those right before it, whose ever they are.

        Returns what it is queued in: the caller adds who waits. Or why nothing was done.
        """
        slot_map = self._slot_map()
        if slot_map is None:
            return _NO_MAP
        if slot_map.owners[slot] != self._partition:
            return self._elsewhere(slot, slot_map.owners[slot])
        size = len(key) + len(value)
        refused = self._unfit_to_write(size, now)
        if refused is not None:
            return refused
        puts = self._puts(1, size, deadline)
        puts.keys.append(key)
        puts.values.append(value)
        return puts

    def put_many(self, keys: Sequence[bytes], values: Sequence[bytes], now: float, deadline: float) -> Puts | None:
        """`put` of each, all queued in the same; None: something is in the way of one, so each is to be put by itself."""
        slot_map, size = self._slot_map(), sum(map(len, keys)) + sum(map(len, values))
        if slot_map is None or slot_map.owners_of(keys).count(self._partition) < len(keys):
            return None
        if self._unfit_to_write(size, now) is not None:
            return None
        puts = self._puts(len(keys), size, deadline)
        puts.keys.extend(keys)
        puts.values.extend(values)
        return puts

    def _puts(self, count: int, size: int, deadline: float) -> Puts:
        """What so many writes, of that many bytes together, are queued in."""
        self._gathering.came(count)
        queue = self._queue
        puts = queue[-1] if queue else None  # what is queued is not begun
        if type(puts) is not Puts or puts.size >= MAX_PUTS_BYTES or puts.deadline < deadline - PUTS_SECONDS:
            puts = Puts(deadline)
            self._enqueue(puts)
        puts.size += size
        self._queued_bytes += size
        return puts

    # --- writes ------------------------------------------------------------------------------------------------------

    def _submit_writes(self, request: Request, answer: Answer) -> None:
        refused = self._unfit_to_write(request.size, self._clock.now())
        if refused is not None:
            answer([refused] * len(request.operations))
            return
        if request.pair is not None and self._answer_repeat(request, request.pair, answer):
            return
        pending = Pending(request, answer)
        if request.pair is not None:
            self._sessions[request.pair] = pending
        self._enqueue(pending)

    def _enqueue(self, work: Work) -> None:
        self._queue.append(work)
        self._queued_bytes += work.size
        self._schedule()

    def _unfit_to_write(self, size: int, now: float) -> Outcome | None:
        core = self._core
        if not core.accepting or now > core.lease_until + LEASE_GRACE:
            return self._reads.not_serving("writes")
        if not core.enough:
            need, have = core.state.min_in_sync if core.state else 0, len(core.describe_in_sync())
            return Outcome(Code.TOO_FEW_REPLICAS, message=f"{have} replicas in sync, minInSync is {need}")
        if self._queued_bytes + size > MAX_QUEUED_BYTES:
            text = (
                f"{self._queued_bytes} bytes of requests are waiting; at most {MAX_QUEUED_BYTES} may. Send less at once"
            )
            return Outcome(Code.RESOURCE_EXHAUSTED, message=text)
        if self.disk_full:
            return _DISK_FULL
        return None

    def _answer_repeat(self, request: Request, pair: tuple[bytes, int], answer: Answer) -> bool:
        """Answer a batch that was here before with what came of it then (rule 10)."""
        under_way = self._sessions.get(pair)
        if under_way is not None:
            if len(under_way.request.operations) != len(request.operations):
                answer(other_batch(request, len(under_way.request.operations)))
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
            answer(other_batch(request, len(before)))
            return True
        answer(self._reads.answer_again(request, before))
        return True

    def _schedule(self) -> None:
        """Make the next batch from the end of this turn of the loop on, if the log's thread is free: it would only wait there."""
        if not self._flush_scheduled and self._may_begin():
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _may_begin(self) -> bool:
        return len(self._in_flight) < MAX_IN_FLIGHT and not self._host.writing

    def _flush(self) -> None:
        """Make one log batch of what is queued, once no more comes; what goes wrong here would leave callers without an answer."""
        try:
            if self._gathering.goes_on():
                asyncio.get_running_loop().call_soon(self._flush)
            else:
                self._flush_queue()
        except Exception as e:
            self._host.die(e)
            raise

    def _flush_queue(self) -> None:
        self._flush_scheduled = False
        if not self._queue or not self._may_begin():
            return
        if not self._core.accepting:
            self._refuse_queue(self._reads.not_serving("writes"))
            return
        if self.disk_full:
            self._refuse_queue(_DISK_FULL)
            return
        first = self._core.end.index + 1
        batch = self._evaluation.begin(self._core.epoch, first, self._core.commit)
        size, now, wall = 0, self._clock.now(), self._clock.wall_ms()
        while self._queue and size < MAX_LOG_BATCH_BYTES:
            work = self._queue.popleft()
            if now >= work.deadline:
                self._settle(work, _TOO_LATE)
                continue
            announced = work.size
            self._evaluation.add(work, wall)
            self._queued_bytes += work.size - announced
            size += work.size
        self._evaluation.end()
        made = batch.made
        if made.count:
            data = made.seal()
            batch.appended(now)
            self._in_flight.append(batch)
            self._store.announce(data, made.folded)
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
                self._settle(work, self._reads.not_serving("writes"))
        elif self._in_flight:
            self._in_flight[-1].waiting.extend(waiting)
        else:
            for work in waiting:
                self._settle(work, None)

    # --- the way out -------------------------------------------------------------------------------------------------

    def committed(self, index: int, *, enough: bool) -> None:
        """Answer whoever waited for what is committed and applied now."""
        in_flight = self._in_flight
        while in_flight and in_flight[0].last <= index:
            for work in in_flight.popleft().waiting:
                self._settle(work, None if enough else _TOO_FEW_HAVE_IT)
        if self._queue:
            self._schedule()

    def written(self) -> None:
        """Make a batch of what came while the log's thread was at work; of nothing more if that found no room."""
        if self._store.short_of_room:
            self.disk_full = True
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
                    if isinstance(work, Pending):
                        work.settle(LOST)
                        work.answers = []
                    else:
                        self._settle(work, LOST)
                batch.waiting = [work for work in batch.waiting if isinstance(work, Pending)]
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
        self._refuse_queue(self._reads.not_serving("writes"))

    def _refuse_queue(self, why: Outcome) -> None:
        queue = list(self._queue)
        self._queue.clear()
        for work in queue:
            self._settle(work, why)

    def _settle(self, work: Work, refused: Outcome | None) -> None:
        self._queued_bytes -= work.size
        if isinstance(work, Pending):
            if work.request.pair is not None:
                self._sessions.pop(work.request.pair, None)
        elif isinstance(work, Transaction) and work.refused is not None:
            refused = work.refused
        work.settle(refused)


def _are_reads(operations: Sequence[Operation]) -> bool:
    if type(operations) is Columns:
        return operations.kind == _GET
    return all(map(_GET.__eq__, map(_KIND, operations)))


_NO_MAP = Outcome(Code.UNAVAILABLE, message="this node does not know the map yet; try again")
_DISK_FULL = Outcome(Code.RESOURCE_EXHAUSTED, message="the leader's disk is nearly full; reads go on")
_TOO_LATE = Outcome(Code.DEADLINE_EXCEEDED, message="the deadline passed before the write was begun")
_TOO_FEW_HAVE_IT = Outcome(
    Code.OUTCOME_UNKNOWN, message="fewer than minInSync replicas have the write; it may or may not survive"
)
"""Committed, but by fewer replicas than minInSync asks for (rule 8)."""
