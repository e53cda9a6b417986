"""The gRPC door of real nodes in this process: every call, every way to be refused, streams to their end."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from kvcoord.contract import ReplicaId, RunId
from kvnode.doors.grpc import MAX_UNSENT, KeyValueDoor
from kvproto.errors import error_from_rpc
from kvproto.v1 import cluster_pb2, kv_pb2
from tests.support.node_cluster import NodeCluster, node_cluster, refusal

GET, PUT, CREATE = kv_pb2.OPERATION_KIND_GET, kv_pb2.OPERATION_KIND_PUT, kv_pb2.OPERATION_KIND_CREATE
Code = grpc.StatusCode


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[NodeCluster]:
    """One node, which leads."""
    async with node_cluster(tmp_path, pods=1) as cluster:
        await cluster.put(b"ready", b"")
        yield cluster


@pytest.fixture
async def kv(cluster: NodeCluster) -> Any:
    return await cluster.kv("c-p0-0")


def op(kind: Any, key: bytes, value: bytes = b"", expected: int | None = None) -> kv_pb2.Operation:
    return kv_pb2.Operation(kind=kind, key=key, value=value, expected_version=expected)


async def test_every_operation_by_itself(kv: Any) -> None:
    """Each answers with the version that it made or found."""
    created = await kv.Create(kv_pb2.CreateRequest(key=b"k", value=b"1"))
    read = await kv.Get(kv_pb2.GetRequest(key=b"k"))
    assert (read.value, read.version) == (b"1", created.version)
    updated = await kv.Update(kv_pb2.UpdateRequest(key=b"k", value=b"2", expected_version=created.version))
    put = await kv.Put(kv_pb2.PutRequest(key=b"k", value=b"3"))
    deleted = await kv.Delete(kv_pb2.DeleteRequest(key=b"k", expected_version=put.version))
    assert created.version < updated.version < put.version < deleted.version


async def test_refusals_have_a_status_and_an_error(kv: Any) -> None:
    """The status for everybody, the Error in its details for who wants to know more."""
    there = await kv.Put(kv_pb2.PutRequest(key=b"k", value=b"1"))
    version = there.version

    status, error = await refusal(kv.Get(kv_pb2.GetRequest(key=b"none")))
    assert (status.code(), error.code) == (Code.NOT_FOUND, kv_pb2.ERROR_CODE_NOT_FOUND)
    status, error = await refusal(kv.Update(kv_pb2.UpdateRequest(key=b"none")))
    assert (status.code(), error.code) == (Code.NOT_FOUND, kv_pb2.ERROR_CODE_NOT_FOUND)
    status, error = await refusal(kv.Create(kv_pb2.CreateRequest(key=b"k")))
    assert (status.code(), error.code) == (Code.ALREADY_EXISTS, kv_pb2.ERROR_CODE_ALREADY_EXISTS)
    assert error.found_version == version
    status, error = await refusal(kv.Put(kv_pb2.PutRequest(key=b"k", expected_version=version + 1)))
    assert (status.code(), error.code) == (Code.FAILED_PRECONDITION, kv_pb2.ERROR_CODE_VERSION_MISMATCH)
    assert (error.found_version, error.partition) == (version, 0)


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("Put", kv_pb2.PutRequest(key=b"")),
        ("Put", kv_pb2.PutRequest(key=bytes(4097))),
        ("Put", kv_pb2.PutRequest(key=b"k", value=bytes((1 << 20) + 1))),
        ("Create", kv_pb2.CreateRequest(key=b"k", expected_version=0)),
        ("Get", kv_pb2.GetRequest(key=b"k", observed_version=1 << 63)),
        ("Get", kv_pb2.GetRequest(key=b"k", read_mode=kv_pb2.READ_MODE_BOUNDED)),
        ("Get", kv_pb2.GetRequest(key=b"k", read_mode=7)),  # type: ignore[arg-type]
        ("Batch", kv_pb2.BatchRequest()),
        ("Batch", kv_pb2.BatchRequest(operations=[op(PUT, b"k")] * 1001)),
        ("Batch", kv_pb2.BatchRequest(operations=[op(PUT, b"k", bytes(1 << 20))] * 6)),
        ("Batch", kv_pb2.BatchRequest(operations=[op(PUT, b"k")], client_id=b"short", sequence=1)),
        ("Batch", kv_pb2.BatchRequest(operations=[op(PUT, b"k")], client_id=bytes(16))),
        ("Batch", kv_pb2.BatchRequest(operations=[op(GET, b"k")], read_mode=kv_pb2.READ_MODE_BOUNDED)),
    ],
)
async def test_what_is_wrong_is_named(kv: Any, name: str, request_: Any) -> None:
    """INVALID_ARGUMENT, with a sentence."""
    status, error = await refusal(getattr(kv, name)(request_))
    assert (status.code(), error.code) == (Code.INVALID_ARGUMENT, kv_pb2.ERROR_CODE_INVALID_ARGUMENT)
    assert error.message


async def test_the_largest_key_and_value_go(kv: Any) -> None:
    """4 KiB and 1 MiB."""
    key, value = b"k" * 4096, bytes(1 << 20)
    await kv.Put(kv_pb2.PutRequest(key=key, value=value))
    assert (await kv.Get(kv_pb2.GetRequest(key=key))).value == value


async def test_a_batch_answers_each_operation(kv: Any) -> None:
    """In order; one that is refused does not stop the others."""
    request = kv_pb2.BatchRequest(
        id=7, operations=[op(PUT, b"a", b"1"), op(GET, b"a"), op(CREATE, b"a"), op(PUT, b""), op(GET, b"none")]
    )
    answer = await kv.Batch(request)
    assert answer.id == 7
    codes = [r.error.code if r.HasField("error") else 0 for r in answer.results]
    assert codes == [
        0,
        0,
        kv_pb2.ERROR_CODE_ALREADY_EXISTS,
        kv_pb2.ERROR_CODE_INVALID_ARGUMENT,
        kv_pb2.ERROR_CODE_NOT_FOUND,
    ]
    assert answer.results[1].record.value == b"1"


async def test_a_repeated_batch_is_done_once(kv: Any) -> None:
    """With its pair."""
    request = kv_pb2.BatchRequest(operations=[op(CREATE, b"k", b"1")], client_id=b"c" * 16, sequence=1)
    first = await kv.Batch(request)
    assert (await kv.Batch(request)).results == first.results
    assert first.results[0].record.version


async def test_a_deadline_that_has_passed_is_kept(kv: Any) -> None:
    """A batch of a stream says itself how long it has."""
    call = kv.Pipeline()
    await call.write(kv_pb2.BatchRequest(id=1, operations=[op(PUT, b"k")], timeout_ms=60_000))
    answer = await call.read()
    assert answer.results[0].record.version
    await call.done_writing()


async def test_a_pipeline_answers_all_before_it_ends(kv: Any) -> None:
    """Writes still under way when the client has sent its last are answered too."""
    count = 200

    async def requests() -> AsyncIterator[kv_pb2.BatchRequest]:
        for i in range(count):
            operation = op(PUT, b"%d" % i, b"v") if i % 2 else op(GET, b"ready")
            yield kv_pb2.BatchRequest(id=i, operations=[operation])

    answers = [answer async for answer in kv.Pipeline(requests())]
    assert sorted(a.id for a in answers) == list(range(count))
    assert [a.id for a in answers if a.id % 2] == list(range(1, count, 2))  # writes in their order


async def test_writes_of_one_stream_are_done_in_their_order(kv: Any) -> None:
    """The last one sent is what is there."""
    async with asyncio.timeout(30):
        requests = [kv_pb2.BatchRequest(id=i, operations=[op(PUT, b"k", b"%d" % i)]) for i in range(100)]
        answers = [a async for a in kv.Pipeline(_each(requests))]
    versions = [a.results[0].record.version for a in answers]
    assert versions == sorted(versions)
    assert (await kv.Get(kv_pb2.GetRequest(key=b"k"))).value == b"99"


async def test_a_wrong_batch_of_a_stream_is_refused_alone(kv: Any) -> None:
    """The stream goes on."""
    wrong = kv_pb2.BatchRequest(id=1, operations=[op(PUT, b"k")], client_id=b"short", sequence=1)
    right = kv_pb2.BatchRequest(id=2, operations=[op(PUT, b"k")])
    answers = {a.id: a async for a in kv.Pipeline(_each([wrong, right]))}
    assert answers[1].results[0].error.code == kv_pb2.ERROR_CODE_INVALID_ARGUMENT
    assert answers[2].results[0].record.version


async def test_a_client_that_only_sends_is_not_read_on(kv: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that nobody takes do not pile up in the node's memory."""
    value = bytes(1 << 20)
    await kv.Put(kv_pb2.PutRequest(key=b"big", value=value))
    taken: list[int] = []
    submit = KeyValueDoor._submit

    def counting(self: KeyValueDoor, message: kv_pb2.BatchRequest, answers: Any) -> None:
        taken.append(message.id)
        submit(self, message, answers)

    monkeypatch.setattr(KeyValueDoor, "_submit", counting)
    call = kv.Pipeline()
    for i in range(60):
        await call.write(kv_pb2.BatchRequest(id=i, operations=[op(GET, b"big")]))
    for _ in range(50):  # calls that go all the way, so that the stream had its turns
        await kv.Get(kv_pb2.GetRequest(key=b"ready"))
    assert len(taken) <= MAX_UNSENT + 8
    for _ in range(60):
        assert (await call.read()).results[0].record.value == value
    await call.done_writing()
    assert await call.read() == aio.EOF


async def test_a_defect_ends_the_stream(kv: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than leave its client waiting."""

    def broken(*_: object) -> None:
        raise RuntimeError("defect")

    monkeypatch.setattr(KeyValueDoor, "_submit", broken)
    call = kv.Pipeline()
    await call.write(kv_pb2.BatchRequest(id=1, operations=[op(GET, b"ready")]))
    async with asyncio.timeout(10):
        with pytest.raises(aio.AioRpcError) as failed:
            await call.read()
    assert failed.value.code() == Code.UNKNOWN


async def test_stepping_down_ends_streams_with_pairs_and_tells_the_rest(tmp_path: Path) -> None:
    """A client with a pair sends it again elsewhere; without one the outcome is unknown."""
    async with node_cluster(tmp_path) as cluster:
        await cluster.put(b"k", b"1")
        await cluster.all_in_sync()
        leader = await cluster.leader()
        kv, status = await cluster.kv(leader), await cluster.cluster(leader)
        for pod in cluster.pods:
            if pod != leader:
                await cluster.kill(pod)
        before = (await status.GetNodeStatus(cluster_pb2.GetNodeStatusRequest())).end_index
        paired, plain = kv.Pipeline(), kv.Pipeline()
        await paired.write(kv_pb2.BatchRequest(id=1, operations=[op(PUT, b"k")], client_id=b"c" * 16, sequence=1))
        await plain.write(kv_pb2.BatchRequest(id=2, operations=[op(PUT, b"l")]))
        unary = asyncio.create_task(_refused(kv.Put(kv_pb2.PutRequest(key=b"m"))))
        async with asyncio.timeout(10):
            while (await status.GetNodeStatus(cluster_pb2.GetNodeStatusRequest())).end_index < before + 4:
                pass  # three writes and the session's record are in its log

        state = await cluster.state()
        other = RunId(ReplicaId("c-p0-x", "1"), "x")
        changed = replace(state.value, epoch=state.value.epoch + 1, leader=other, serial=state.value.serial + 1)
        await cluster.coordination.compare_and_set_partition(0, state.version, changed)

        async with asyncio.timeout(10):
            with pytest.raises(aio.AioRpcError) as ended:
                await paired.read()
            assert ended.value.code() == Code.UNAVAILABLE
            assert error_from_rpc(ended.value).code == kv_pb2.ERROR_CODE_NOT_LEADER
            answer = await plain.read()
            assert answer.results[0].error.code == kv_pb2.ERROR_CODE_OUTCOME_UNKNOWN
            status_, error = await unary
            assert (status_.code(), error.code) == (Code.UNKNOWN, kv_pb2.ERROR_CODE_OUTCOME_UNKNOWN)
        plain.cancel()


async def test_a_follower_refuses_and_names_the_leader(tmp_path: Path) -> None:
    """With its address."""
    async with node_cluster(tmp_path) as cluster:
        await cluster.put(b"k", b"1")
        await cluster.all_in_sync()
        leader = await cluster.leader()
        follower = next(p for p in cluster.pods if p != leader)
        kv = await cluster.kv(follower)
        for call in (kv.Put(kv_pb2.PutRequest(key=b"k")), kv.Get(kv_pb2.GetRequest(key=b"k"))):
            status, error = await refusal(call)
            assert (status.code(), error.code) == (Code.UNAVAILABLE, kv_pb2.ERROR_CODE_NOT_LEADER)
            assert error.leader == (await cluster.member(leader)).grpc_address


async def test_another_partitions_key_is_moved(tmp_path: Path) -> None:
    """The map's version says how new the node's map is."""
    async with node_cluster(tmp_path, pods=1, partitions=2) as cluster:
        kv = await cluster.kv("c-p0-0")
        assert (await cluster.put(b"bar", b"")).version
        refused = [await _refused(kv.Put(kv_pb2.PutRequest(key=b"%d" % i))) for i in range(20)]
        errors = [error for _, error in refused if error.code]
        assert {e.code for e in errors} == {kv_pb2.ERROR_CODE_MOVED}
        assert {e.map_version for e in errors} == {1}


async def test_topology_now_and_when_it_changes(cluster: NodeCluster) -> None:
    """From the node's own view."""
    stub = await cluster.cluster("c-p0-0")
    topology = await stub.GetTopology(cluster_pb2.GetTopologyRequest())
    assert topology.partitions[0].leader == "c-p0-0"
    watch = stub.WatchTopology(cluster_pb2.WatchTopologyRequest())
    assert (await watch.read()).partitions[0].epoch == 1
    state = await cluster.state()
    changed = replace(state.value, min_in_sync=1, replicas=("c-p0-0", "c-p0-9"), serial=state.value.serial + 1)
    await cluster.coordination.compare_and_set_partition(0, state.version, changed)
    async with asyncio.timeout(10):
        while list((await watch.read()).partitions[0].replicas) != ["c-p0-0", "c-p0-9"]:
            pass
    watch.cancel()


async def test_status_says_who_leads(cluster: NodeCluster) -> None:
    """And that it serves."""
    status = await (await cluster.cluster("c-p0-0")).GetNodeStatus(cluster_pb2.GetNodeStatusRequest())
    assert (status.role, status.serving, status.in_sync, status.keys) == (cluster_pb2.ROLE_LEADER, True, True, 1)
    assert status.commit_index == status.end_index == status.applied_index


async def test_health_and_reflection_are_there(cluster: NodeCluster) -> None:
    """For tools that know nothing of us."""
    channel: Any = await cluster.channel("c-p0-0")
    health: Any = health_pb2_grpc.HealthStub(channel)
    answer = await health.Check(health_pb2.HealthCheckRequest(service="kvcluster.v1.KeyValue"))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
    answers = [a async for a in stub.ServerReflectionInfo(_each(asked))]
    names = {s.name for s in answers[0].list_services_response.service}
    assert {"kvcluster.v1.KeyValue", "kvcluster.v1.Cluster", "grpc.health.v1.Health"} <= names


async def _each(requests: list[Any]) -> AsyncIterator[Any]:
    for request in requests:
        yield request


async def _refused(call: Any) -> tuple[Any, kv_pb2.Error]:
    try:
        await call
    except aio.AioRpcError as e:
        return e, error_from_rpc(e)
    return None, kv_pb2.Error()
