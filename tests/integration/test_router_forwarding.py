"""A router over fake nodes: real gRPC on both sides, coordination in memory."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import cast

import aiohttp
import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from kvclient import AsyncClient, Operation, Record
from kvclient.grpc_transport import ChannelFactory, GrpcTransport
from kvcommon.clock import SystemClock
from kvcommon.slotmap import SlotMap
from kvcommon.versions import EPOCH_MS, pack_version
from kvcoord.contract import ClusterIdentity, MemberInfo, PartitionState, ReplicaId, RunId
from kvcoord.memory import FINE, UNREACHED, MemoryCoordination, MemoryStore
from kvproto.errors import error_from_rpc
from kvproto.v1 import cluster_pb2, cluster_pb2_grpc, kv_pb2, kv_pb2_grpc
from kvrouter.router import Addresses, Router
from kvrouter.server import ServerEngine
from tests.support.fake_node import FakeCluster, FakeNode, applied_then_dropped, applied_then_silent, refusing, silent

CLIENT, SEQUENCE = b"0123456789abcdef", 7


class Scene:
    """Two partitions of two nodes each, coordination that knows them, and a router."""

    def __init__(self, server: ServerEngine) -> None:
        self.server = server
        self.cluster = FakeCluster(partitions=2)
        self.store = MemoryStore()
        self.coordination = self.store.session("scene")
        self.sessions: list[MemoryCoordination] = [self.coordination]
        self.router: Router | None = None
        self.channel: aio.Channel | None = None

    async def begin(self) -> None:
        await self.coordination.start()
        for partition in range(2):
            for number in range(2):
                node = await self.cluster.node(f"c-p{partition}-{number}", partition)
                await self.register(node)
            await self.coordination.create_partition(partition, self.state(partition))
        await self.coordination.create_identity(ClusterIdentity("c1", "fake", 2, 2))
        await self.coordination.create_map(self.cluster.slot_map)

    async def register(self, node: FakeNode) -> None:
        session = self.store.session(node.pod)
        self.sessions.append(session)
        await session.start()
        replica = ReplicaId(node.pod, "i")
        await session.register_member(
            MemberInfo(node.pod, node.partition, replica, node.run, node.address, "r:1", "h:1")
        )

    def state(self, partition: int) -> PartitionState:
        epoch, pod, run = self.cluster.leaders[partition]
        pods = tuple(self.cluster.pods(partition))
        in_sync = tuple(ReplicaId(p, "i") for p in pods)
        return PartitionState(epoch, RunId(ReplicaId(pod, "i"), run), in_sync, pods, 1)

    async def lead(self, pod: str) -> None:
        """Another leads, and coordination says so."""
        partition = self.cluster.nodes[pod].partition
        self.cluster.lead(partition, pod)
        known = await self.coordination.read_partition(partition)
        assert known is not None
        state = replace(self.state(partition), serial=known.value.serial + 1)
        await self.coordination.compare_and_set_partition(partition, known.version, state)

    async def start_router(self) -> Router:
        session = self.store.session("router")
        self.sessions.append(session)
        await session.start()
        self.router = Router(
            session,
            GrpcTransport(ChannelFactory()),
            Addresses("127.0.0.1", 0, 0, grpc_server=self.server),
            clock=SystemClock(),
            rng=random.Random(1),
        )
        await self.router.start()
        self.channel = aio.insecure_channel(f"127.0.0.1:{self.router.grpc_port}")
        return self.router

    @property
    def stub(self) -> "kv_pb2_grpc.KeyValueAsyncStub":
        assert self.channel is not None
        return kv_pb2_grpc.KeyValueStub(self.channel)

    async def mapped(self) -> None:
        assert self.router is not None
        await self.router._engine.wait_for_map()

    async def end(self) -> None:
        if self.channel is not None:
            await self.channel.close()
        if self.router is not None:
            await self.router.close(0.1)
        for session in self.sessions:
            await session.close()
        await self.cluster.stop()

    def leader_of(self, key: bytes) -> FakeNode:
        from kvcommon.slots import slot_of

        return self.cluster.nodes[self.cluster.leaders[self.cluster.slot_map.owners[slot_of(key)]][1]]


@pytest.fixture(params=["grpcio", "nghttp2"])
def server(request: pytest.FixtureRequest) -> ServerEngine:
    """Each test runs against both gRPC servers."""
    return cast("ServerEngine", request.param)


@pytest.fixture
async def scene(server: ServerEngine) -> AsyncIterator[Scene]:
    scene = Scene(server)
    try:
        await scene.begin()
        await scene.start_router()
        await scene.mapped()
        yield scene
    finally:
        await scene.end()


def puts(*keys: bytes) -> list[kv_pb2.Operation]:
    return [kv_pb2.Operation(kind=kv_pb2.OPERATION_KIND_PUT, key=key, value=b"v") for key in keys]


async def code_of(call: "Callable[[], object]") -> tuple[grpc.StatusCode, kv_pb2.Error]:
    with pytest.raises(aio.AioRpcError) as caught:
        await call()  # type: ignore[misc]
    return caught.value.code(), error_from_rpc(caught.value)


async def test_unary_calls_do_what_they_say(scene: Scene) -> None:
    put = await scene.stub.Put(kv_pb2.PutRequest(key=b"k", value=b"v"))
    got = await scene.stub.Get(kv_pb2.GetRequest(key=b"k"))
    assert (got.value, got.version) == (b"v", put.version)
    updated = await scene.stub.Update(kv_pb2.UpdateRequest(key=b"k", value=b"w", expected_version=put.version))
    deleted = await scene.stub.Delete(kv_pb2.DeleteRequest(key=b"k", expected_version=updated.version))
    created = await scene.stub.Create(kv_pb2.CreateRequest(key=b"k", value=b"x"))
    assert put.version < updated.version < deleted.version < created.version


async def test_a_unary_call_fails_with_its_status_and_the_version_found(scene: Scene) -> None:
    assert (await code_of(lambda: scene.stub.Get(kv_pb2.GetRequest(key=b"no"))))[0] is grpc.StatusCode.NOT_FOUND
    put = await scene.stub.Put(kv_pb2.PutRequest(key=b"k", value=b"v"))
    code, error = await code_of(lambda: scene.stub.Create(kv_pb2.CreateRequest(key=b"k", value=b"v")))
    assert (code, error.found_version) == (grpc.StatusCode.ALREADY_EXISTS, put.version)
    request = kv_pb2.PutRequest(key=b"k", value=b"v", expected_version=1)
    code, error = await code_of(lambda: scene.stub.Put(request))
    assert (code, error.found_version) == (grpc.StatusCode.FAILED_PRECONDITION, put.version)


async def test_a_batch_is_split_by_partition_under_its_own_pair_and_joined_in_order(scene: Scene) -> None:
    keys = [b"key-%d" % i for i in range(40)]
    response = await scene.stub.Batch(
        kv_pb2.BatchRequest(operations=puts(*keys), age_ms=1500, client_id=CLIENT, sequence=SEQUENCE)
    )
    assert all(result.HasField("record") for result in response.results)
    batches = [b for node in scene.cluster.nodes.values() for b in node.batches]
    assert len(batches) == 2
    assert {(b.client_id, b.sequence) for b in batches} == {(CLIENT, SEQUENCE)}
    assert all(b.age_ms >= 1500 for b in batches)
    reads = [kv_pb2.Operation(kind=kv_pb2.OPERATION_KIND_GET, key=key) for key in keys]
    got = await scene.stub.Batch(kv_pb2.BatchRequest(operations=reads))
    written = [result.record.version for result in response.results]
    assert [result.record.version for result in got.results] == written


async def test_concurrent_unary_calls_are_gathered_into_few_batches(scene: Scene) -> None:
    for node in scene.cluster.nodes.values():
        node.frozen.clear()
    calls = [asyncio.ensure_future(scene.stub.Put(kv_pb2.PutRequest(key=b"key-%d" % i, value=b"v"))) for i in range(60)]
    await asyncio.sleep(0.3)
    for node in scene.cluster.nodes.values():
        node.frozen.set()
    await asyncio.gather(*calls)
    assert sum(len(node.batches) for node in scene.cluster.nodes.values()) < 15


async def test_the_client_works_through_the_router(scene: Scene) -> None:
    assert scene.router is not None
    async with await AsyncClient.connect(f"127.0.0.1:{scene.router.grpc_port}", mode="router") as client:
        version = await client.put(b"k", b"v")
        assert await client.get(b"k") == Record(b"k", b"v", version)
        results = await client.batch([Operation.put(b"%d" % i, b"v") for i in range(30)])
        assert all(isinstance(result, Record) for result in results)


async def test_a_unary_write_survives_a_killed_leader_and_is_applied_once(scene: Scene) -> None:
    leader = scene.leader_of(b"k")
    leader.answer = applied_then_silent
    call = asyncio.ensure_future(scene.stub.Put(kv_pb2.PutRequest(key=b"k", value=b"v"), timeout=5))
    await leader.wait_for_batches(1)
    await leader.stop()
    await scene.lead(leader.pod[:-1] + "1")
    await call
    assert scene.cluster.times_applied(b"k") == 1


async def test_a_batch_sent_again_by_the_router_keeps_its_callers_pair(scene: Scene) -> None:
    leader = scene.leader_of(b"k")
    leader.faults.append(applied_then_dropped)
    await scene.stub.Batch(kv_pb2.BatchRequest(operations=puts(b"k"), client_id=CLIENT, sequence=SEQUENCE))
    assert [(b.client_id, b.sequence) for b in leader.batches] == [(CLIENT, SEQUENCE)] * 2
    assert leader.batches[0].age_ms <= leader.batches[1].age_ms
    assert scene.cluster.times_applied(b"k") == 1


async def test_a_batch_ages_while_the_router_holds_it(scene: Scene) -> None:
    leader = scene.leader_of(b"k")
    leader.faults.extend([refusing(kv_pb2.ERROR_CODE_UNAVAILABLE)] * 3)
    request = kv_pb2.BatchRequest(operations=puts(b"k"), age_ms=100, client_id=CLIENT, sequence=SEQUENCE)
    await scene.stub.Batch(request)
    ages = [batch.age_ms for batch in leader.batches]
    assert ages[0] >= 100
    assert ages == sorted(ages)
    assert ages[-1] >= 130, "three waits of 10 ms at least"
    assert {batch.sequence for batch in leader.batches} == {SEQUENCE}


async def test_a_stream_answers_a_healthy_partition_while_another_is_silent(scene: Scene) -> None:
    sick, well = b"k", next(b"%d" % i for i in range(99) if scene.leader_of(b"%d" % i) is not scene.leader_of(b"k"))
    scene.leader_of(sick).answer = silent
    call = scene.stub.Pipeline()
    await call.write(
        kv_pb2.BatchRequest(id=1, operations=puts(sick), timeout_ms=300, client_id=CLIENT, sequence=SEQUENCE)
    )
    await call.write(kv_pb2.BatchRequest(id=2, operations=puts(well), timeout_ms=5000))
    first = await call.read()
    second = await call.read()
    assert isinstance(first, kv_pb2.BatchResponse)
    assert isinstance(second, kv_pb2.BatchResponse)
    assert [first.id, second.id] == [2, 1]
    assert first.results[0].HasField("record")
    assert second.results[0].error.code == kv_pb2.ERROR_CODE_OUTCOME_UNKNOWN
    await call.done_writing()
    assert await call.read() is aio.EOF


async def test_the_routers_answer_comes_before_its_callers_deadline(scene: Scene) -> None:
    scene.leader_of(b"k").answer = refusing(kv_pb2.ERROR_CODE_TOO_FEW_REPLICAS)
    _, error = await code_of(lambda: scene.stub.Put(kv_pb2.PutRequest(key=b"k", value=b"v"), timeout=0.5))
    # Unknown if an attempt was under way just then. The error is the router's in both cases: gRPC's own has no such details.
    assert error.code in (kv_pb2.ERROR_CODE_DEADLINE_EXCEEDED, kv_pb2.ERROR_CODE_OUTCOME_UNKNOWN)
    assert "TOO_FEW_REPLICAS" in error.message


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (kv_pb2.BatchRequest(), "a batch of 0 operations"),
        (kv_pb2.BatchRequest(operations=puts(*[b"k"] * 1001)), "a batch of 1001 operations"),
        (kv_pb2.BatchRequest(operations=puts(b"k"), client_id=b"short", sequence=1), "client_id of 5 bytes"),
        (kv_pb2.BatchRequest(operations=puts(b"k"), sequence=1), "without a client_id"),
        (kv_pb2.BatchRequest(operations=puts(b"k"), read_mode=kv_pb2.READ_MODE_BOUNDED), "without max_lag_ms"),
    ],
)
async def test_a_batch_that_is_wrong_as_a_whole_is_refused(
    scene: Scene, request_: kv_pb2.BatchRequest, text: str
) -> None:
    code, error = await code_of(lambda: scene.stub.Batch(request_))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert text in error.message
    assert all(not node.batches for node in scene.cluster.nodes.values())


async def test_a_call_that_is_wrong_is_refused(scene: Scene) -> None:
    async def message(call: "Callable[[], object]") -> str:
        code, error = await code_of(call)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        return error.message

    assert "a key of 0 bytes" in await message(lambda: scene.stub.Get(kv_pb2.GetRequest()))
    big = kv_pb2.PutRequest(key=b"k", value=bytes((1 << 20) + 1))
    assert "a value of 1048577 bytes" in await message(lambda: scene.stub.Put(big))
    future = pack_version(SystemClock().wall_ms() - EPOCH_MS + 60_000, 0, 0)
    ahead = kv_pb2.GetRequest(key=b"k", observed_version=future)
    assert "more than 1 s ahead" in await message(lambda: scene.stub.Get(ahead))


async def test_a_session_reads_on_after_a_leaders_clock_was_ahead(scene: Scene) -> None:
    """The version that it saw is a day ahead of the router's clock, too: whether a replica has it is the replica's to say."""
    future = pack_version(SystemClock().wall_ms() - EPOCH_MS + 86_400_000, 0, 0)
    request = kv_pb2.GetRequest(key=b"k", read_mode=kv_pb2.READ_MODE_ANY, observed_version=future)

    await scene.stub.Put(kv_pb2.PutRequest(key=b"k", value=b"v"))

    assert (await scene.stub.Get(request)).value == b"v"


async def test_a_session_read_takes_its_observed_version_along_and_no_one_elses(scene: Scene) -> None:
    put = await scene.stub.Put(kv_pb2.PutRequest(key=b"k", value=b"v"))
    for observed in (put.version, 0):
        request = kv_pb2.GetRequest(key=b"k", read_mode=kv_pb2.READ_MODE_ANY, observed_version=observed)
        await scene.stub.Get(request)
    reads = [b for n in scene.cluster.nodes.values() for b in n.batches if b.read_mode == kv_pb2.READ_MODE_ANY]
    assert [b.observed_version for b in reads] == [put.version, 0]


async def test_too_big_a_message_is_refused_by_grpc(scene: Scene) -> None:
    big = kv_pb2.PutRequest(key=b"k", value=bytes(9 << 20))
    assert (await code_of(lambda: scene.stub.Put(big)))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_the_router_serves_on_without_coordination(scene: Scene) -> None:
    await scene.stub.Put(kv_pb2.PutRequest(key=b"k", value=b"1"))
    scene.store.hook = lambda _: UNREACHED
    await scene.stub.Put(kv_pb2.PutRequest(key=b"k", value=b"2"))
    assert scene.router is not None
    assert scene.router.not_ready() is None
    assert len((await topology(scene)).members) == 4


async def test_a_router_without_a_map_says_so_at_once_and_is_not_ready(server: ServerEngine) -> None:
    scene = Scene(server)
    scene.store.hook = lambda _: UNREACHED
    try:
        router = await scene.start_router()
        assert "map" in (router.not_ready() or "")
        started = time.monotonic()
        code, error = await code_of(lambda: scene.stub.Put(kv_pb2.PutRequest(key=b"k", value=b"v")))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "no map is known yet" in error.message
        assert time.monotonic() - started < 1
        scene.store.hook = lambda _: FINE
        await scene.begin()
        await scene.mapped()
        await scene.stub.Put(kv_pb2.PutRequest(key=b"k", value=b"v"))
    finally:
        await scene.end()


async def topology(scene: Scene) -> cluster_pb2.Topology:
    assert scene.channel is not None
    return await cluster_pb2_grpc.ClusterStub(scene.channel).GetTopology(cluster_pb2.GetTopologyRequest())


async def test_the_topology_is_what_coordination_says_and_is_watched(scene: Scene) -> None:
    told = await topology(scene)
    assert (told.cluster_id, told.cluster_name, told.map_version) == ("c1", "fake", 1)
    assert [(p.partition, p.epoch, p.leader, p.leader_run) for p in told.partitions] == [
        (0, 1, "c-p0-0", "r1"),
        (1, 1, "c-p1-0", "r1"),
    ]
    assert [m.pod for m in told.members] == ["c-p0-0", "c-p0-1", "c-p1-0", "c-p1-1"]
    assert SlotMap.of_ranges(1, [(s.first, s.last, s.partition) for s in told.slots]) == scene.cluster.slot_map
    assert scene.channel is not None
    watch = cluster_pb2_grpc.ClusterStub(scene.channel).WatchTopology(cluster_pb2.WatchTopologyRequest())
    await watch.read()
    await scene.lead("c-p1-1")
    changed = await watch.read()
    assert isinstance(changed, cluster_pb2.Topology)
    assert changed.partitions[1].leader == "c-p1-1"
    watch.cancel()


async def test_a_router_has_no_node_status(scene: Scene) -> None:
    assert scene.channel is not None
    with pytest.raises(aio.AioRpcError) as caught:
        await cluster_pb2_grpc.ClusterStub(scene.channel).GetNodeStatus(cluster_pb2.GetNodeStatusRequest())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_health_probes_metrics_and_reflection_are_served(scene: Scene) -> None:
    assert scene.router is not None
    assert scene.channel is not None
    health = await health_pb2_grpc.HealthStub(scene.channel).Check(  # type: ignore[attr-defined]  # missing in the stubs
        health_pb2.HealthCheckRequest()
    )
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    await scene.stub.Put(kv_pb2.PutRequest(key=b"k", value=b"v"))
    async with aiohttp.ClientSession(f"http://127.0.0.1:{scene.router.http_port}") as session:
        assert (await session.get("/readyz")).status == 200
        metrics = await (await session.get("/metrics")).text()
        status = await (await session.get("/status")).json()
    assert "kvcluster_router_operations_total 1.0" in metrics
    assert "kvcluster_router_partitions_without_leader 0.0" in metrics
    assert status["leaders"] == {"0": "c-p0-0", "1": "c-p1-0"}
    reflection = reflection_pb2_grpc.ServerReflectionStub(scene.channel)  # type: ignore[arg-type]  # the stubs know no aio
    asked = reflection.ServerReflectionInfo(  # type: ignore[operator]
        iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    )
    answer = await asked.read()
    assert "kvcluster.v1.KeyValue" in {s.name for s in answer.list_services_response.service}


async def test_closing_finishes_what_is_under_way_and_takes_no_more(scene: Scene) -> None:
    leader = scene.leader_of(b"k")
    leader.frozen.clear()
    call = asyncio.ensure_future(scene.stub.Put(kv_pb2.PutRequest(key=b"k", value=b"v")))
    await leader.wait_for_batches(1)
    assert scene.router is not None
    closing = asyncio.ensure_future(scene.router.close(5))
    await asyncio.sleep(0.3)
    assert scene.router.not_ready() == "closing"
    leader.frozen.set()
    assert (await call).version
    await closing
    scene.router = None
