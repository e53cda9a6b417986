"""One partition's way to whoever serves it.

A lane gathers what waits into batches, keeps a few of them under way, and sends again what may be sent again.

Writes and reads have lanes of their own, so that a write batch sent again never runs a bystander's read again.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING

from kvclient.batch import Batch, all_invalid, last_refusal, not_applied, unknown_outcome
from kvclient.burst import Burst
from kvclient.connection import Connection
from kvclient.operations import OPERATION_OVERHEAD, ReadMode, ReadProfile
from kvclient.retry import Next, Seen, after_answer
from kvclient.topology import Endpoint
from kvclient.units import Call, Pair, Unit, joined
from kvcommon.numbers import MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS
from kvproto.pipeline import Done, Request, ResultTuple
from kvproto.v1 import kv_pb2

if TYPE_CHECKING:
    from kvclient.engine import Engine

_VERSION, _VALUE, _ERROR = map(itemgetter, range(3))  # of a result
_COUNT = attrgetter("count")  # of a unit
_FEW_READS, _FEW_WRITES = 16, 256  # operations that are not shared out among batches
_FULL = 256  # operations that are worth a batch beside those that are under way as a rule
_READ_BYTES = 16 << 10  # how large the first answer's records are taken to be


class Lane:
    """Operations of one partition and one read profile (None: writes)."""

    __slots__ = (
        "_clock_behind",
        "_connection",
        "_endpoint",
        "_engine",
        "_failures",
        "_hint",
        "_hold",
        "_read_bytes",
        "_scheduled",
        "inflight",
        "partition",
        "profile",
        "queue",
        "resend",
    )

    def __init__(self, engine: "Engine", partition: int, profile: ReadProfile | None) -> None:
        self.partition = partition
        self.profile = profile
        self.queue: deque[Unit] = deque()
        self.resend: deque[Batch] = deque()  # in the order of their first sending
        self.inflight: dict[int, Batch] = {}  # by request id, so in the order of sending
        self._engine = engine
        self._connection: Connection | None = None
        self._endpoint: Endpoint | None = None  # of the connection, or of the last one
        self._hint: tuple[Endpoint, int] | None = None  # a refusal named this leader, when the partition's epoch was
        self._hold: asyncio.TimerHandle | None = None
        self._failures = 0
        self._read_bytes = _READ_BYTES
        self._scheduled = False
        self._clock_behind = False  # the server's, behind what other partitions' leaders gave us

    def add(self, unit: Unit, *, at_once: bool = False) -> None:
        """Take a unit; it is sent with whatever else arrives in this turn of the loop, or `at_once`."""
        self.queue.append(unit)
        if not self._scheduled and self._may_send():
            self.pump() if at_once else self._schedule()

    def add_first(self, units: Iterable[Unit]) -> None:
        """Take units back, before all that wait."""
        self.queue.extendleft(reversed(tuple(units)))
        self._schedule()

    def pump(self) -> None:
        """Send as much as may be under way."""
        self._scheduled = False
        while self._hold is None and (self.resend or self.queue) and self._may_send():
            connection = self._connected()
            if connection is None or not connection.is_open:
                return  # a topology, or `opened`, will pump again
            batch = self.resend.popleft() if self.resend else self._gather()
            if batch is None:
                return
            self._send(connection, batch)

    def _may_send(self) -> bool:
        """Whether one more batch may be under way; more of them while so much waits: the next are on their way while disks sync."""
        limits, under_way = self._engine.limits, len(self.inflight)
        if under_way < limits.batches_per_partition:
            return True
        return under_way < limits.full_batches_per_partition and sum(map(_COUNT, self.queue)) >= _FULL

    def answered(self, batch: Batch, results: Sequence[ResultTuple]) -> None:
        """Take an answer."""
        del self.inflight[batch.request.id]
        if len(results) != batch.count:
            self._recover([batch])
            self._failed(f"{len(results)} results for {batch.count} operations; a defect of the server", None)
            return
        if self.profile is None and batch.request.observed_version and all_invalid(results):
            # Rule 18: the server's clock is more than a second behind what we saw elsewhere. Nothing was done.
            self._clock_behind = True
            batch.request.observed_version = 0
            self._keep([batch])
            self._schedule()
            return
        if self.profile is not None:
            values = results.values if type(results) is Done else map(_VALUE, results)
            self._read_bytes = sum(map(len, values)) // batch.count + OPERATION_OVERHEAD
        seen = self._distribute(batch, results)
        if seen is Seen.FINAL:
            self._failures = 0
            if (self.queue or self.resend) and not self._scheduled:
                self._schedule()
            return
        what = after_answer(seen, writes=self.profile is None, maybe=batch.maybe, foreign=batch.foreign)
        if what is Next.DONE:
            self._failures = 0
        else:
            self._after(batch, what, unknown=bool(seen & Seen.UNKNOWN))
        if (self.queue or self.resend) and not self._scheduled:
            self._schedule()

    def lost(self, reason: str) -> None:
        """The connection is gone."""
        self._connection = self._hint = None
        self._recover(tuple(self.inflight.values()))
        self.inflight.clear()
        self._failed(reason, None)

    def retarget(self) -> None:
        """Go where the topology now says; what the old place has not answered is sent to the new one at once."""
        target = self._target(self._connection.endpoint if self._connection else None)
        if target is None or target == self._endpoint:
            return
        if self._connection is not None:
            self._engine.leave(self._connection, self)
            self._connection = None
            self._recover(tuple(self.inflight.values()))
            self.inflight.clear()
        self._failures = 0
        self._release_hold()
        if self.queue or self.resend:
            self._schedule()

    def take_queue(self) -> tuple[Unit, ...]:
        """Give up everything that is certainly not applied and waits; for another map."""
        units = tuple(self.queue)
        self.queue.clear()
        return units

    def expire(self, now: float) -> float:
        """End what is past its deadline; returns the earliest deadline left."""
        for request_id, batch in tuple(self.inflight.items()):
            self._expire_units(batch.units, now, sent=self.profile is None)
            if batch.done:  # the server owes an answer that nobody waits for: make room
                del self.inflight[request_id]
                if self._connection is not None:
                    self._connection.inflight.pop(request_id, None)
                self._engine.release(batch.units)
                self._schedule()
        for batch in tuple(self.resend):
            self._expire_units(batch.units, now, sent=True)
            if batch.done:
                self.resend.remove(batch)
                self._engine.release(batch.units)
        if any(unit.done or unit.deadline <= now for unit in self.queue):
            self._expire_units(self.queue, now, sent=False)
            self._engine.release([unit for unit in self.queue if unit.done])
            self.queue = deque(unit for unit in self.queue if not unit.done)
        return min((unit.deadline for unit in self._units() if not unit.done), default=float("inf"))

    def abandon(self) -> None:
        """End everything: the client is closed."""
        self._release_hold()
        self._expire_units(
            [u for batch in (*self.inflight.values(), *self.resend) for u in batch.units],
            float("inf"),
            sent=self.profile is None,
        )
        self._expire_units(self.queue, float("inf"), sent=False)
        self.inflight.clear()
        self.resend.clear()
        self.queue.clear()

    def _units(self) -> Iterable[Unit]:
        for batch in self.inflight.values():
            yield from batch.units
        for batch in self.resend:
            yield from batch.units
        yield from self.queue

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._engine.loop.call_soon(self.pump)

    def _target(self, current: Endpoint | None) -> Endpoint | None:
        view = self._engine.view
        if self._hint is not None:
            endpoint, epoch = self._hint
            state = view.partitions.get(self.partition)
            if state is not None and state.epoch <= epoch:
                return endpoint
            self._hint = None
        return self._engine.placement.target(view, self.partition, self.profile, current)

    def _connected(self) -> Connection | None:
        if self._connection is None:
            target = self._target(None)
            if target is None:
                self._engine.poke()
                return None
            self._endpoint = target
            self._connection = self._engine.join(target, self)
        return self._connection

    def _gather(self) -> Batch | None:
        """The next batch of what waits: at most 1,000 operations and 4 MiB, a caller's own pair alone.

        Of many operations it takes its share only, so that as many batches are under way as may be: while the server is at one,
        this side makes or reads another. Fewer writes than that go together: a batch costs three logs the same, however many
        are in it.
        Of reads the answer counts, taken to be like the last one.
        """
        queue, read_bytes = self.queue, 0
        if len(queue) == 1 and type(queue[0]) is Call and not queue[0].done:
            return self._batch([queue.popleft()], None)
        few = _FEW_WRITES
        if self.profile is not None:
            few, read_bytes = _FEW_READS, self._read_bytes
        limit = self._engine.limits.batches_per_partition
        under_way = sum(map(_COUNT, self.inflight.values()))
        share = max(few, (sum(map(_COUNT, queue)) + under_way + limit - 1) // limit)
        share = min(share, MAX_BATCH_OPERATIONS)
        units: list[Unit] = []
        count = size = 0
        pair: Pair | None = None
        while queue and pair is None and count < share:
            unit = queue[0]
            if unit.done:  # its caller gave up
                self._engine.release([queue.popleft()])
                continue
            more, pair = unit.count, unit.pair
            added = unit.size + read_bytes * more
            if type(unit) is Burst:
                if unit.begun or size + added > MAX_BATCH_BYTES:
                    queue.popleft()
                    queue.extendleft(reversed(self._engine.apart((unit,))))
                    continue
                if count + more > share:
                    queue.appendleft(unit.split(share - count))
                    continue
            if units and (pair is not None or count + more > MAX_BATCH_OPERATIONS or size + added > MAX_BATCH_BYTES):
                break
            units.append(queue.popleft())
            count += more
            size += added
        return self._batch(units, units[0].pair) if units else None

    def _batch(self, units: list[Unit], pair: Pair | None) -> Batch:
        request = Request(joined(units), observed_version=self._observed(units))
        if self.profile is None:
            request.client_id, request.sequence = pair or self._engine.next_pair()
        else:
            request.read_mode = self.profile.mode.value
            if self.profile.mode is not ReadMode.LINEARIZABLE:
                request.max_lag_ms = self.profile.max_lag_ms
        return Batch(self, units, request, foreign=pair is not None)

    def _observed(self, units: list[Unit]) -> int:
        """What the answer must not be older than; 0 where that goes without saying."""
        if not self._engine.session:
            return max(unit.observed for unit in units)
        own = self._engine.observed(self.partition)
        if self.profile is not None:
            return 0 if self.profile.mode is ReadMode.LINEARIZABLE else own
        highest = self._engine.observed()
        return highest if highest > own and not self._clock_behind else 0

    def _send(self, connection: Connection, batch: Batch) -> None:
        now = self._engine.loop.time()
        request = batch.request
        if batch.first_sent is None:
            born = batch.units[0].born
            batch.first_sent = now if born is None else born
        request.id = self._engine.next_id()
        request.timeout_ms = max(1, int((batch.deadline - now) * 1000))
        if self.profile is None:
            request.age_ms = int((now - batch.first_sent) * 1000)
        self.inflight[request.id] = batch
        connection.send(batch, request)

    def _distribute(self, batch: Batch, results: Sequence[ResultTuple]) -> Seen:
        """Give each unit its results."""
        if type(results) is Done:
            highest, done = results.highest, True
        else:
            highest, done = max(map(_VERSION, results)), not any(map(_ERROR, results))
        if highest:
            self._engine.observe(self.partition, highest)
        if len(batch.units) == batch.count and done:  # as most are: single calls, all done
            for unit, result in zip(batch.units, results, strict=True):
                if type(unit) is Call:
                    if not unit.future.done():
                        unit.future.set_result(result)
                else:
                    unit.take((result,))
            self._engine.release(batch.units)
            return Seen.FINAL
        seen = Seen.NOTHING
        final: list[Unit] = []
        at = 0
        for unit in batch.units:
            what = unit.take(results[at : at + unit.count])
            at += unit.count
            if what is Seen.FINAL:
                final.append(unit)
            else:
                seen |= what
        self._engine.release(final)
        if seen is Seen.NOTHING:  # joining flags costs as much as all of the above does for one get
            return Seen.FINAL
        return seen | Seen.FINAL if final else seen

    def _after(self, batch: Batch, what: Next, *, unknown: bool) -> None:
        """Do with a batch that was not wholly answered what `after_answer` decided."""
        left = [unit for unit in batch.units if not unit.done]
        refusal = next((unit.refusal for unit in left if unit.refusal is not None), None)
        if what is Next.RESEND:
            batch.maybe = batch.maybe or unknown
            self._keep([batch])
        elif what is Next.REGATHER:
            self._engine.release([unit for unit in batch.units if unit.done])
            left = self._engine.apart(left)
            for unit in left:
                unit.shrink()
            self._engine.route(left, self)
        else:
            for unit in left:
                said = unit.refusal or kv_pb2.Error()
                unit.fail(said if what is Next.DELIVER else unknown_outcome(f"last refusal: {said.message}"))
            self._engine.release(batch.units)
        if refusal is not None:
            self._failed(refusal.message, refusal)

    def _recover(self, batches: Iterable[Batch]) -> None:
        """Keep what was sent and not answered: writes as they were, reads back to the queue."""
        batches = [batch for batch in batches if not self._dropped(batch)]
        if self.profile is None:
            for batch in batches:
                batch.maybe = True
            self._keep(batches)
        else:
            units = self._engine.apart(unit for batch in batches for unit in batch.units)
            self._engine.release([unit for unit in units if unit.done])
            for unit in units:
                unit.shrink()
            self.queue.extendleft(reversed([unit for unit in units if not unit.done]))

    def _keep(self, batches: Iterable[Batch]) -> None:
        kept = [*self.resend, *(batch for batch in batches if not self._dropped(batch))]
        self.resend = deque(sorted(kept, key=lambda batch: batch.first_sent or 0.0))

    def _dropped(self, batch: Batch) -> bool:
        if not batch.done:
            return False
        self._engine.release(batch.units)
        return True

    def _failed(self, reason: str, refusal: kv_pb2.Error | None) -> None:
        """Wait a little, and find out who serves."""
        said = refusal or kv_pb2.Error(code=kv_pb2.ERROR_CODE_UNAVAILABLE, message=reason)
        for unit in (*self.queue, *(unit for batch in self.resend for unit in batch.units)):
            unit.refusal = said
        self._failures += 1
        if self._connection is not None and refusal is not None:
            self._follow_hint(refusal)
        if self._hold is None:
            delay = self._engine.backoff.delay(self._failures, self._engine.rng)
            self._hold = self._engine.loop.call_later(delay, self._unhold)
        self._engine.poke()

    def _follow_hint(self, refusal: kv_pb2.Error) -> None:
        """A NOT_LEADER that names the leader is newer than our topology; one that is itself refused is forgotten."""
        assert self._connection is not None
        if self.profile is not None and self.profile.mode is not ReadMode.LINEARIZABLE:  # another replica may do
            self._engine.placement.failed(self._connection.endpoint)
        if refusal.code != kv_pb2.ERROR_CODE_NOT_LEADER:
            return
        self._hint = None
        endpoint = self._engine.view.at(self.partition, refusal.leader) if refusal.leader else None
        state = self._engine.view.partitions.get(self.partition)
        if endpoint is not None and state is not None and endpoint != self._connection.endpoint:
            self._hint = (endpoint, state.epoch)

    def _unhold(self) -> None:
        self._hold = None
        self.retarget()
        self.pump()

    def _release_hold(self) -> None:
        if self._hold is not None:
            self._hold.cancel()
            self._hold = None

    def _expire_units(self, units: Iterable[Unit], now: float, *, sent: bool) -> None:
        for unit in units:
            if unit.deadline <= now or now == float("inf"):
                unit.fail(
                    unknown_outcome(last_refusal(unit)) if sent else not_applied(unit, closed=now == float("inf"))
                )
