"""The client's engine: lanes, connections, bounds and deadlines, around what is known of the cluster.

It belongs to one event loop and is called on it only. Time is the loop's; randomness, transport and topology come in.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kvclient.burst import Burst
from kvclient.connection import Connection
from kvclient.errors import ClientClosedError
from kvclient.lane import Lane
from kvclient.operations import ReadProfile
from kvclient.placement import Placement
from kvclient.retry import Backoff
from kvclient.topology import Endpoint, View
from kvclient.transport import TopologySource, Transport
from kvclient.units import Call, Pair, Unit
from kvcommon.errors import KVClusterError
from kvcommon.slots import slot_of
from kvproto.pipeline import OperationTuple, ResultTuple, in_columns, keys_of, picked
from kvproto.v1 import kv_pb2

# The standard library's logging: a library prints nothing unless its application wants it to.
log = logging.getLogger(__name__)

_FAR = float("inf")
_CLOSED = "the client was closed; not applied"
_TIMER_GRAIN = 0.001  # seconds; deadlines are kept this exactly


_Asked = tuple[OperationTuple, float, "asyncio.Future[ResultTuple]"]
"""An operation, its time-out in seconds, and who waits for it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be under way."""

    operations: int = 50_000  # taken from callers and not answered
    bytes: int = 64 << 20
    batches_per_partition: int = 2  # sent and not answered, reads and writes counted apart
    full_batches_per_partition: int = 6  # the same, while enough waits to fill another


class Engine:
    """Takes units, brings them to whoever serves them, and ends each within its deadline."""

    def __init__(
        self,
        *,
        transport: Transport,
        source: TopologySource,
        placement: Placement,
        rng: random.Random,
        loop: asyncio.AbstractEventLoop,
        limits: Limits | None = None,
        backoff: Backoff | None = None,
        session: bool = True,
    ) -> None:
        """`session`: all callers are one session, whose reads never go back; otherwise each unit says what it saw."""
        self.session = session
        self.loop = loop
        self.rng = rng
        self.placement = placement
        self.limits = limits or Limits()
        self.backoff = backoff or Backoff()
        self.view = View()
        self.client_id = rng.randbytes(16)
        self.closed = False
        self._transport = transport
        self._source = source
        self._lanes: dict[tuple[int, ReadProfile | None], Lane] = {}
        self._connections: dict[Endpoint, Connection] = {}
        self._sequence = 0
        self._request_id = 0
        self._observed: dict[int, int] = {}
        self._operations = 0
        self._bytes = 0
        self._waiting: deque[tuple[asyncio.Future[None], Unit]] = deque()
        self._calls: dict[ReadProfile | None, list[_Asked]] = {}  # of this turn of the loop
        self._tasks: set[asyncio.Task[None]] = set()  # calls for which there is no room
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _FAR
        self._mapped = asyncio.Event()
        self._follower: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow the topology."""
        self._follower = self.loop.create_task(self._follow(), name="kvclient-topology")

    async def wait_for_map(self) -> None:
        """Return once a map is known."""
        await self._mapped.wait()

    async def close(self) -> None:
        """End everything: what was not sent fails as such, sent writes as unknown."""
        if self.closed:
            return
        self.closed = True
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)
        for lane in self._lanes.values():
            lane.abandon()
        for connection in tuple(self._connections.values()):
            connection.close()
        self._connections.clear()
        if self._timer is not None:
            self._timer.cancel()
        for waiter, _ in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()
        for profile in tuple(self._calls):
            self._turn_ends(profile)
        await asyncio.gather(*self._tasks)
        await self._transport.close()

    # -- what callers use

    def partition_of(self, key: bytes) -> int | None:
        """Which partition owns a key; None while no map is known."""
        slot_map = self.view.slot_map
        return slot_map.owners[slot_of(key)] if slot_map is not None else None

    def partitions_of(self, keys: Sequence[bytes]) -> Sequence[int | None]:
        """Which partition owns each key; None while no map is known."""
        slot_map = self.view.slot_map
        return slot_map.owners_of(keys) if slot_map is not None else [None] * len(keys)

    def call(
        self, operation: OperationTuple, timeout: float, profile: ReadProfile | None
    ) -> "asyncio.Future[ResultTuple]":
        """One operation, taken with all others of this turn of the loop; what to await. Raises ClientClosedError."""
        if self.closed or self.view.slot_map is None:
            raise ClientClosedError("the client was closed" if self.closed else "no map is known yet")
        future: asyncio.Future[ResultTuple] = self.loop.create_future()
        calls = self._calls.get(profile)
        if calls is None:
            calls = self._calls[profile] = []
            self.loop.call_soon(self._turn_ends, profile)
        calls.append((operation, timeout, future))
        return future

    def try_submit(
        self, unit: Unit, partition: int, profile: ReadProfile | None, *, waited: bool = False, at_once: bool = False
    ) -> bool:
        """Take a unit unless others wait or it would exceed the bounds; one that is larger than they are may go alone."""
        operations, size, limits = self._operations + unit.charge, self._bytes + unit.size, self.limits
        if (self._waiting and not waited) or (
            (operations > limits.operations or size > limits.bytes) and self._operations
        ):
            return False
        self._operations, self._bytes = operations, size
        if unit.deadline < self._timer_at:
            self._set_timer(unit.deadline)
        lane = self._lanes.get((partition, profile))
        (lane or self.lane(partition, profile)).add(unit, at_once=at_once)
        return True

    async def submit(self, unit: Unit, partition: int, profile: ReadProfile | None) -> None:
        """Take a unit once there is room; one whose deadline passes before is failed with RESOURCE_EXHAUSTED."""
        woken = False
        while not self.try_submit(unit, partition, profile, waited=woken):
            waiter: asyncio.Future[None] = self.loop.create_future()
            (self._waiting.appendleft if woken else self._waiting.append)((waiter, unit))
            timer = self.loop.call_at(unit.deadline, _set, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                waiter.cancel()
            if self.closed:
                unit.fail(kv_pb2.Error(code=kv_pb2.ERROR_CODE_UNAVAILABLE, message=_CLOSED))
                return
            if self.loop.time() >= unit.deadline:
                message = (
                    f"{self._operations} operations and {self._bytes} bytes are under way, of {self.limits.operations} "
                    f"and {self.limits.bytes}: no room within the deadline; send less at once, or allow more time"
                )
                unit.fail(kv_pb2.Error(code=kv_pb2.ERROR_CODE_RESOURCE_EXHAUSTED, message=message))
                self._admit()
                return
            woken = True  # another may have taken the room since: then it waits again, as the first

    @property
    def trouble(self) -> str:
        """Why nothing was heard of the cluster yet."""
        return self._source.trouble

    @property
    def under_way(self) -> int:
        """Operations taken and not answered."""
        return self._operations

    # -- what lanes use

    def next_pair(self) -> Pair:
        """A (client id, sequence) for a new batch."""
        self._sequence += 1
        return self.client_id, self._sequence

    def next_id(self) -> int:
        """An id for a request, never used before."""
        self._request_id += 1
        return self._request_id

    def observed(self, partition: int | None = None) -> int:
        """The highest version seen, of one partition or of all; 0 when none."""
        if partition is not None:
            return self._observed.get(partition, 0)
        return max(self._observed.values(), default=0)

    def observe(self, partition: int, version: int) -> None:
        """Remember a version seen, so that no later read goes back before it."""
        if version > self._observed.get(partition, 0):
            self._observed[partition] = version

    def join(self, endpoint: Endpoint, lane: Lane) -> Connection:
        """The connection to an endpoint, opened when there is none."""
        connection = self._connections.get(endpoint)
        if connection is None:
            connection = self._connections[endpoint] = Connection(endpoint, self._lost)
            connection.connect(self._transport)
        connection.lanes[lane] = None
        return connection

    def leave(self, connection: Connection, lane: Lane) -> None:
        """A lane goes elsewhere; a connection that nobody uses is cancelled."""
        connection.lanes.pop(lane, None)
        for request_id in lane.inflight:
            connection.inflight.pop(request_id, None)
        if not connection.lanes and self._connections.get(connection.endpoint) is connection:
            del self._connections[connection.endpoint]
            connection.close()

    def route(self, units: Iterable[Unit], lane: Lane) -> None:
        """Put back units that are certainly not applied: to the lane they come from, or where the map now says."""
        staying: list[Unit] = []
        for unit in self.apart(units):
            owners = {self.partition_of(key) for key in unit.all_keys()}
            owner = owners.pop()
            if owners:  # the map has split the group: its caller splits it again
                unit.fail(unit.refusal or kv_pb2.Error(code=kv_pb2.ERROR_CODE_MOVED, message="the map has changed"))
                self.release((unit,))
            elif owner is None or owner == lane.partition:
                staying.append(unit)
            else:
                self.lane(owner, lane.profile).add_first((unit,))
        lane.add_first(staying)

    def apart(self, units: Iterable[Unit]) -> list[Unit]:
        """The units, bursts as the calls that they are: those still to be done."""
        apart: list[Unit] = []
        for unit in units:
            if type(unit) is Burst:
                calls = unit.calls()
                self._operations += len(calls)
                self._bytes += sum(call.size for call in calls)
                self.release((unit,))
                apart += calls
            else:
                apart.append(unit)
        return apart

    def release(self, units: Iterable[Unit]) -> None:
        """These units no longer count towards the bounds."""
        operations = size = 0
        for unit in units:
            if not unit.released:
                unit.released = True
                operations += unit.charge
                size += unit.size
        self._operations -= operations
        self._bytes -= size
        if self._waiting:
            self._admit()

    def poke(self) -> None:
        """What is known of the cluster looks old."""
        self._source.poke()

    def lane(self, partition: int, profile: ReadProfile | None) -> Lane:
        """The lane of a partition and profile."""
        key = (partition, profile)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(self, partition, profile)
        return lane

    # -- inside

    def _turn_ends(self, profile: ReadProfile | None) -> None:
        """Take the calls of the turn that ends: those of one partition and time-out as one burst."""
        if profile not in self._calls:  # closed meanwhile
            return
        calls = self._calls.pop(profile)
        if len(calls) == 1:
            operation, timeout, future = calls[0]
            call = Call(*operation, self.loop.time() + timeout, future)
            self._take_call(call, self.partition_of(call.key), profile, at_once=True)
            return
        asked, timeouts, futures = zip(*calls, strict=True)
        operations = in_columns(asked)
        owners = self.partitions_of(keys_of(operations))
        now = self.loop.time()
        if owners.count(owners[0]) == timeouts.count(timeouts[0]) == len(asked):  # as nearly always
            self._take(Burst(operations, futures, now + timeouts[0]), owners[0], profile)
            return
        parts: dict[tuple[int | None, float], list[int]] = {}
        for place, part in enumerate(zip(owners, timeouts, strict=True)):
            parts.setdefault(part, []).append(place)
        for (owner, timeout), places in parts.items():
            burst = Burst(picked(operations, places), [futures[i] for i in places], now + timeout)
            self._take(burst, owner, profile)

    def _take(self, burst: Burst, partition: int | None, profile: ReadProfile | None) -> None:
        """Take a burst; what there is no room for waits call by call."""
        if self.closed or partition is None:
            burst.fail(kv_pb2.Error(code=kv_pb2.ERROR_CODE_UNAVAILABLE, message=_CLOSED))
        elif not self._fits(burst) or not self.try_submit(burst, partition, profile, at_once=True):
            for call in burst.calls():
                self._take_call(call, partition, profile, at_once=False)

    def _take_call(self, call: Call, partition: int | None, profile: ReadProfile | None, *, at_once: bool) -> None:
        """Take a call, or let it wait for room."""
        if self.closed or partition is None:
            call.fail(kv_pb2.Error(code=kv_pb2.ERROR_CODE_UNAVAILABLE, message=_CLOSED))
        elif not self.try_submit(call, partition, profile, at_once=at_once):
            task = self.loop.create_task(self.submit(call, partition, profile))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _fits(self, burst: Burst) -> bool:
        """Whether it is within the bounds by itself."""
        return burst.count <= self.limits.operations and burst.size <= self.limits.bytes

    def _admit(self) -> None:
        """Wake the first that wait for room; each takes its room when it runs."""
        room_operations = self.limits.operations - self._operations
        room_bytes = self.limits.bytes - self._bytes
        while self._waiting:
            waiter, unit = self._waiting[0]
            if not waiter.done():
                if self._operations and (unit.charge > room_operations or unit.size > room_bytes):
                    return
                room_operations -= unit.charge
                room_bytes -= unit.size
                waiter.set_result(None)
            self._waiting.popleft()

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        self._timer = self.loop.call_at(when, self._expire) if when < _FAR else None

    def _expire(self) -> None:
        self._timer = None
        now = self.loop.time()
        earliest = min((lane.expire(now) for lane in tuple(self._lanes.values())), default=_FAR)
        self._set_timer(max(earliest, now + _TIMER_GRAIN))

    def _lost(self, connection: Connection, reason: str) -> None:
        endpoint = connection.endpoint
        if self._connections.get(endpoint) is connection:
            del self._connections[endpoint]
        self.placement.failed(endpoint)
        log.info("stream lost: endpoint=%s pod=%s reason=%s", endpoint.address, endpoint.pod, reason)
        for lane in tuple(connection.lanes):
            lane.lost(f"{endpoint.pod or 'router'} at {endpoint.address}: {reason}")

    async def _follow(self) -> None:
        async for topology in self._source.watch():
            try:
                view = self.view.merged(topology)
            except KVClusterError as error:
                log.warning("topology refused: %s", error)
                continue
            if view != self.view:
                self._adopt(view)

    def _adopt(self, view: View) -> None:
        moved = view.map_version != self.view.map_version
        self.view = view
        if view.slot_map is not None:
            self._mapped.set()
        for lane in tuple(self._lanes.values()):
            if moved:
                self.route(lane.take_queue(), lane)
            lane.retarget()
            lane.pump()


def _set(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


def partition_parts(
    partitions: Sequence[int | None],
) -> dict[int | None, list[int]]:
    """Positions of operations by their partition, each list in order."""
    parts: dict[int | None, list[int]] = {}
    for position, partition in enumerate(partitions):
        parts.setdefault(partition, []).append(position)
    return parts
