"""A node of one process for tests of what lies above it: the real services over real gRPC, a dict for a store.

Several `FakeNode`s of one `FakeCluster` share what they know, as replicas do, so that a new leader has what the old one
applied, the table of write batches included. Faults are set on a node or queued for its next batches.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc import aio

from kvcommon.slotmap import SlotMap
from kvcommon.slots import slot_of
from kvproto.errors import abort_with
from kvproto.v1 import cluster_pb2, cluster_pb2_grpc, kv_pb2, kv_pb2_grpc

Context = aio.ServicerContext[Any, Any]
SERVER_OPTIONS = [
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 100),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_receive_message_length", 8 << 20),
    ("grpc.max_send_message_length", 8 << 20),
    ("grpc.so_reuseport", 0),
]


@dataclass(frozen=True)
class Applied:
    """One write that took effect."""

    partition: int
    kind: int
    key: bytes
    value: bytes
    pair: tuple[bytes, int]


@dataclass
class Store:
    """What the replicas of one partition agree on."""

    records: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)
    outcomes: dict[tuple[bytes, int], list[kv_pb2.Result]] = field(default_factory=dict)


class Drop(Exception):  # noqa: N818 - it is not an error but an order
    """Raised by a fault: end the stream."""


Fault = Callable[["FakeNode", kv_pb2.BatchRequest], kv_pb2.BatchResponse | None]


class FakeCluster:
    """Partitions, who leads them, and their nodes."""

    def __init__(self, partitions: int = 1) -> None:
        self.slot_map = SlotMap.even(partitions)
        self.stores = {p: Store() for p in range(partitions)}
        self.nodes: dict[str, FakeNode] = {}
        self.leaders: dict[int, tuple[int, str, str]] = {}  # epoch, pod, run
        self.applied: list[Applied] = []
        self.version = 1000
        self._changed = asyncio.Event()

    async def node(self, pod: str, partition: int = 0, *, run: str = "r1", port: int = 0) -> "FakeNode":
        """Start a node; the first of a partition leads it."""
        node = FakeNode(self, pod, partition, run)
        await node.start(port)
        self.nodes[pod] = node
        if partition not in self.leaders:
            self.leaders[partition] = (1, pod, run)
        self.publish()
        return node

    def lead(self, partition: int, pod: str, *, publish: bool = True) -> None:
        """Make a node the leader, in the next epoch."""
        self.leaders[partition] = (self.leaders[partition][0] + 1, pod, self.nodes[pod].run)
        if publish:
            self.publish()

    def move(self, slot_map: SlotMap, *, publish: bool = True) -> None:
        """Change the map; records go with their slots."""
        everything = {k: v for store in self.stores.values() for k, v in store.records.items()}
        self.slot_map = slot_map
        for partition, store in self.stores.items():
            store.records = {k: v for k, v in everything.items() if slot_map.owners[slot_of(k)] == partition}
        if publish:
            self.publish()

    def publish(self) -> None:
        """Tell everybody who watches."""
        self._changed.set()
        self._changed = asyncio.Event()

    def changed(self) -> asyncio.Event:
        """Set at the next change."""
        return self._changed

    def topology(self) -> cluster_pb2.Topology:
        return cluster_pb2.Topology(
            cluster_id="c1",
            cluster_name="fake",
            map_version=self.slot_map.version,
            slots=[
                cluster_pb2.SlotRange(first=r.first, last=r.last, partition=r.partition) for r in self.slot_map.ranges
            ],
            partitions=[
                cluster_pb2.Partition(
                    partition=p, epoch=epoch, leader=pod, leader_run=run, in_sync=self.pods(p), replicas=self.pods(p)
                )
                for p, (epoch, pod, run) in sorted(self.leaders.items())
            ],
            members=[
                cluster_pb2.Member(
                    pod=n.pod, partition=n.partition, run=n.run, grpc_address=n.address, connected=n.running
                )
                for _, n in sorted(self.nodes.items())
            ],
        )

    def pods(self, partition: int) -> list[str]:
        return [pod for pod, node in sorted(self.nodes.items()) if node.partition == partition]

    def value(self, key: bytes) -> bytes | None:
        record = self.stores[self.slot_map.owners[slot_of(key)]].records.get(key)
        return record[0] if record else None

    def times_applied(self, key: bytes) -> int:
        return sum(write.key == key for write in self.applied)

    async def stop(self) -> None:
        await asyncio.gather(*(node.stop() for node in self.nodes.values()))


class FakeNode:
    """One node; `faults` are taken by the next batches, `answer` by all while it is set."""

    def __init__(self, cluster: FakeCluster, pod: str, partition: int, run: str) -> None:
        self.cluster = cluster
        self.pod = pod
        self.partition = partition
        self.run = run
        self.address = ""
        self.running = False
        self.batches: list[kv_pb2.BatchRequest] = []
        self.received: dict[str, int] = defaultdict(int)
        self.arrived = asyncio.Condition()
        self.faults: deque[Fault] = deque()
        self.answer: Fault | None = None
        self.is_router = False  # has no node status
        self.frozen = asyncio.Event()  # set: works
        self.frozen.set()
        self._server: aio.Server | None = None

    async def start(self, port: int = 0) -> None:
        self._server = aio.server(options=SERVER_OPTIONS)
        kv_pb2_grpc.add_KeyValueServicer_to_server(_KeyValue(self), self._server)
        cluster_pb2_grpc.add_ClusterServicer_to_server(_Cluster(self), self._server)
        bound = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self.address = f"127.0.0.1:{bound}"
        await self._server.start()
        self.running = True

    async def stop(self) -> None:
        """As a killed process: every stream breaks."""
        self.running = False
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def wait_for_batches(self, count: int) -> None:
        """Return once so many batches have arrived, answered or not."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: len(self.batches) >= count)

    @property
    def leads(self) -> bool:
        return self.cluster.leaders[self.partition][1:] == (self.pod, self.run)

    async def handle(self, request: kv_pb2.BatchRequest) -> kv_pb2.BatchResponse | None:
        """An answer, or None for never."""
        copy = kv_pb2.BatchRequest()
        copy.CopyFrom(request)
        async with self.arrived:
            self.batches.append(copy)
            self.arrived.notify_all()
        await self.frozen.wait()
        fault = self.faults.popleft() if self.faults else self.answer
        return fault(self, request) if fault is not None else self.execute(request)

    def execute(self, request: kv_pb2.BatchRequest) -> kv_pb2.BatchResponse:
        """Apply a batch as a node does: once per pair."""
        stale = request.read_mode in (kv_pb2.READ_MODE_ANY, kv_pb2.READ_MODE_BOUNDED)
        if not self.leads and not stale:
            leader = self.cluster.nodes.get(self.cluster.leaders[self.partition][1])
            return refuse(request, kv_pb2.ERROR_CODE_NOT_LEADER, leader.address if leader else "")
        pair, store = (request.client_id, request.sequence), self.cluster.stores[self.partition]
        results = store.outcomes.get(pair) if request.client_id else None
        if results is None:
            results = [self._apply(store, operation, pair) for operation in request.operations]
            if request.client_id:
                store.outcomes[pair] = results
        return kv_pb2.BatchResponse(id=request.id, results=results)

    def _apply(self, store: Store, operation: kv_pb2.Operation, pair: tuple[bytes, int]) -> kv_pb2.Result:
        if self.cluster.slot_map.owners[slot_of(operation.key)] != self.partition:
            return failed(kv_pb2.ERROR_CODE_MOVED, map_version=self.cluster.slot_map.version)
        found = store.records.get(operation.key)
        version = found[1] if found else 0
        kind = operation.kind
        if kind == kv_pb2.OPERATION_KIND_CREATE and found:
            return failed(kv_pb2.ERROR_CODE_ALREADY_EXISTS, found_version=version)
        if kind in (kv_pb2.OPERATION_KIND_GET, kv_pb2.OPERATION_KIND_UPDATE, kv_pb2.OPERATION_KIND_DELETE):
            if found is None:
                return failed(kv_pb2.ERROR_CODE_NOT_FOUND)
            if kind == kv_pb2.OPERATION_KIND_GET:
                return kv_pb2.Result(record=kv_pb2.Record(value=found[0], version=version))
        if operation.HasField("expected_version") and operation.expected_version != version:
            return failed(kv_pb2.ERROR_CODE_VERSION_MISMATCH, found_version=version)
        self.cluster.version += 1
        if kind == kv_pb2.OPERATION_KIND_DELETE:
            del store.records[operation.key]
        else:
            store.records[operation.key] = (operation.value, self.cluster.version)
        self.cluster.applied.append(Applied(self.partition, kind, operation.key, operation.value, pair))
        return kv_pb2.Result(record=kv_pb2.Record(version=self.cluster.version))


def failed(code: "kv_pb2.ErrorCode.ValueType", **fields: Any) -> kv_pb2.Result:
    return kv_pb2.Result(error=kv_pb2.Error(code=code, message=kv_pb2.ErrorCode.Name(code), **fields))


def refuse(request: kv_pb2.BatchRequest, code: "kv_pb2.ErrorCode.ValueType", leader: str = "") -> kv_pb2.BatchResponse:
    results = [failed(code, leader=leader) for _ in request.operations]
    return kv_pb2.BatchResponse(id=request.id, results=results)


def refusing(code: "kv_pb2.ErrorCode.ValueType") -> Fault:
    """A fault: every operation is refused."""
    return lambda _, request: refuse(request, code)


def silent(_: FakeNode, __: kv_pb2.BatchRequest) -> None:
    """A fault: received, never applied, never answered."""


def applied_then_silent(node: FakeNode, request: kv_pb2.BatchRequest) -> None:
    """A fault: applied, never answered."""
    node.execute(request)


def applied_then_dropped(node: FakeNode, request: kv_pb2.BatchRequest) -> None:
    """A fault: applied, and the stream breaks before the answer."""
    node.execute(request)
    raise Drop


def dropped(_: FakeNode, __: kv_pb2.BatchRequest) -> None:
    """A fault: the stream breaks and nothing was applied."""
    raise Drop


class _KeyValue(kv_pb2_grpc.KeyValueServicer):
    def __init__(self, node: FakeNode) -> None:
        self._node = node

    async def Pipeline(  # type: ignore[override]  # noqa: N802 - gRPC's name; the stubs know no writing handler
        self, requests: AsyncIterator[kv_pb2.BatchRequest], context: Context
    ) -> None:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        tasks: set[asyncio.Task[None]] = set()
        writing = asyncio.Lock()

        async def answer(request: kv_pb2.BatchRequest) -> None:
            try:
                response = await self._node.handle(request)
            except Drop:
                if not ended.done():
                    ended.set_result(None)
                return
            if response is not None and not ended.done():
                async with writing:  # gRPC takes one message at a time
                    await context.write(response)

        async def read() -> None:
            async for request in requests:
                task = loop.create_task(answer(request))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

        self._node.received["Pipeline"] += 1
        reader = loop.create_task(read())
        try:
            await asyncio.wait({reader, ended}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                async with writing:
                    await abort_with(
                        context, kv_pb2.Error(code=kv_pb2.ERROR_CODE_UNAVAILABLE, message="stream dropped")
                    )
        finally:
            for task in (reader, *tasks):
                task.cancel()
            await asyncio.gather(reader, *tasks, return_exceptions=True)

    async def _unused(self, request: Any, context: Context) -> Any:
        raise NotImplementedError

    Get = Put = Create = Update = Delete = Batch = _unused


class _Cluster(cluster_pb2_grpc.ClusterServicer):
    def __init__(self, node: FakeNode) -> None:
        self._node = node

    async def GetTopology(  # noqa: N802 - gRPC's name
        self, request: cluster_pb2.GetTopologyRequest, context: Context
    ) -> cluster_pb2.Topology:
        self._node.received["GetTopology"] += 1
        return self._node.cluster.topology()

    async def WatchTopology(  # noqa: N802 - gRPC's name
        self, request: cluster_pb2.WatchTopologyRequest, context: Context
    ) -> AsyncIterator[cluster_pb2.Topology]:
        while True:
            changed = self._node.cluster.changed()  # before the reading, so that no change falls between
            yield self._node.cluster.topology()
            await changed.wait()

    async def GetNodeStatus(  # noqa: N802 - gRPC's name
        self, request: cluster_pb2.GetNodeStatusRequest, context: Context
    ) -> cluster_pb2.NodeStatus:
        if self._node.is_router:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "a router")
        leads = self._node.leads
        return cluster_pb2.NodeStatus(
            pod=self._node.pod,
            partition=self._node.partition,
            run=self._node.run,
            role=cluster_pb2.ROLE_LEADER if leads else cluster_pb2.ROLE_FOLLOWER,
            serving=True,
            in_sync=True,
            epoch=self._node.cluster.leaders[self._node.partition][0],
            end_index=10,
            durable_index=10,
            commit_index=10 if leads else 7,
            keys=len(self._node.cluster.stores[self._node.partition].records),
        )
