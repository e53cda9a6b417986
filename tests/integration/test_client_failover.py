"""What the client does when leaders die, answers are lost and maps change, against fake nodes over real gRPC."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from kvclient import (
    AsyncClient,
    DeadlineExceededError,
    KVClusterError,
    Limits,
    Operation,
    OutcomeUnknownError,
    ReadMode,
    Record,
    ResourceExhaustedError,
    UnavailableError,
)
from kvclient.retry import Backoff
from kvcommon.slotmap import SlotMap
from kvproto.v1 import kv_pb2
from tests.support.fake_node import (
    FakeCluster,
    FakeNode,
    applied_then_dropped,
    applied_then_silent,
    dropped,
    failed,
    refuse,
    refusing,
    silent,
)
from tests.support.stuck_proxy import StuckProxy


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    cluster = FakeCluster()
    for number in range(2):
        await cluster.node(f"c-p0-{number}")
    yield cluster
    await cluster.stop()


@pytest.fixture
def first(cluster: FakeCluster) -> FakeNode:
    return cluster.nodes["c-p0-0"]


@pytest.fixture
def second(cluster: FakeCluster) -> FakeNode:
    return cluster.nodes["c-p0-1"]


@pytest.fixture
async def client(first: FakeNode, second: FakeNode) -> AsyncIterator[AsyncClient]:
    async with await AsyncClient.connect([first.address, second.address], timeout=8) as client:
        yield client


def pairs(node: FakeNode) -> list[tuple[bytes, int]]:
    return [(b.client_id, b.sequence) for b in node.batches if b.client_id]


async def test_a_write_whose_answer_was_lost_is_sent_again_under_the_same_pair_and_applied_once(
    client: AsyncClient, cluster: FakeCluster, first: FakeNode
) -> None:
    first.faults.append(applied_then_dropped)
    version = await client.put(b"k", b"v")
    assert len(pairs(first)) == 2
    assert len(set(pairs(first))) == 1
    assert cluster.times_applied(b"k") == 1
    assert await client.get(b"k") == Record(b"k", b"v", version)


async def test_a_batch_that_is_sent_again_has_the_same_operations_and_has_aged(
    client: AsyncClient, first: FakeNode
) -> None:
    first.faults.extend((dropped, dropped))
    await asyncio.gather(*(client.put(b"k%d" % i, b"v") for i in range(10)))
    original, *repeats = first.batches
    assert len(repeats) == 2
    assert all(list(b.operations) == list(original.operations) for b in repeats)
    assert original.age_ms < repeats[0].age_ms < repeats[1].age_ms


async def test_a_read_whose_answer_was_lost_is_read_again(client: AsyncClient, first: FakeNode) -> None:
    await client.put(b"k", b"v")
    first.faults.append(dropped)
    assert await client.get(b"k") is not None


async def test_a_killed_leader_costs_no_error_once_another_leads(
    client: AsyncClient, cluster: FakeCluster, first: FakeNode, second: FakeNode
) -> None:
    first.answer = applied_then_silent
    puts = [asyncio.ensure_future(client.put(b"k%d" % i, b"v")) for i in range(5)]
    await first.wait_for_batches(1)
    await first.stop()
    cluster.lead(0, second.pod)
    await asyncio.gather(*puts)
    assert pairs(second)[0] == pairs(first)[0]
    assert [cluster.times_applied(b"k%d" % i) for i in range(5)] == [1] * 5


async def test_a_new_leader_gets_at_once_what_a_silent_old_one_has_not_answered(
    client: AsyncClient, cluster: FakeCluster, first: FakeNode, second: FakeNode
) -> None:
    first.answer = silent
    put = asyncio.ensure_future(client.put(b"k", b"v"))
    await first.wait_for_batches(1)
    started = time.monotonic()
    cluster.lead(0, second.pod)
    await put
    assert time.monotonic() - started < 0.5
    assert pairs(second) == pairs(first)


async def test_a_refusal_that_names_the_leader_is_followed_before_the_topology_says_so(
    client: AsyncClient, cluster: FakeCluster, second: FakeNode
) -> None:
    cluster.lead(0, second.pod, publish=False)
    stale = cluster.topology()
    stale.partitions[0].epoch, stale.partitions[0].leader = 1, "c-p0-0"
    cluster.topology = lambda: stale  # type: ignore[method-assign]
    await client.put(b"k", b"v", timeout=3)
    assert cluster.value(b"k") == b"v"


async def test_a_pod_that_comes_back_elsewhere_is_found(
    client: AsyncClient, cluster: FakeCluster, first: FakeNode
) -> None:
    await client.put(b"k", b"1")
    await first.stop()
    put = asyncio.ensure_future(client.put(b"k", b"2"))
    again = await cluster.node(first.pod, run="r2")
    cluster.lead(0, first.pod)
    await put
    assert cluster.value(b"k") == b"2"
    assert len(again.batches) == 1


@pytest.mark.parametrize(
    "code",
    [
        kv_pb2.ERROR_CODE_UNAVAILABLE,
        kv_pb2.ERROR_CODE_TOO_FEW_REPLICAS,
        kv_pb2.ERROR_CODE_RESOURCE_EXHAUSTED,
        kv_pb2.ERROR_CODE_NOT_LEADER,
        kv_pb2.ERROR_CODE_OUTCOME_UNKNOWN,
    ],
)
async def test_what_was_refused_is_tried_again_within_the_deadline(
    client: AsyncClient, cluster: FakeCluster, first: FakeNode, code: kv_pb2.ErrorCode.ValueType
) -> None:
    first.faults.extend([refusing(code)] * 3)
    await client.put(b"k", b"v")
    assert len(first.batches) == 4
    assert cluster.times_applied(b"k") == 1


async def test_only_the_refused_operations_of_a_batch_are_sent_again_and_under_a_new_pair(
    client: AsyncClient, cluster: FakeCluster, first: FakeNode
) -> None:
    def refuse_second(node: FakeNode, request: kv_pb2.BatchRequest) -> kv_pb2.BatchResponse:
        response = node.execute(kv_pb2.BatchRequest(id=request.id, operations=request.operations[:1]))
        response.results.append(failed(kv_pb2.ERROR_CODE_UNAVAILABLE))
        return response

    first.faults.append(refuse_second)
    results = await client.batch([Operation.put(b"a", b"1"), Operation.put(b"b", b"2")])
    assert [type(r) for r in results] == [Record, Record]
    assert [[o.key for o in b.operations] for b in first.batches] == [[b"a", b"b"], [b"b"]]
    assert len(set(pairs(first))) == 2
    assert cluster.times_applied(b"a") == cluster.times_applied(b"b") == 1


async def test_a_refusal_after_a_lost_answer_does_not_make_the_write_certainly_not_applied(
    client: AsyncClient, cluster: FakeCluster, first: FakeNode
) -> None:
    first.faults.extend((applied_then_dropped, refusing(kv_pb2.ERROR_CODE_UNAVAILABLE)))
    await client.put(b"k", b"v")
    assert len(first.batches) == 3
    assert len(set(pairs(first))) == 1, "a new pair would have applied it twice"
    assert cluster.times_applied(b"k") == 1


async def test_an_operation_of_a_moved_slot_follows_the_map() -> None:
    cluster = FakeCluster(partitions=2)
    try:
        nodes = [await cluster.node(f"c-p{p}-0", p) for p in range(2)]
        async with await AsyncClient.connect(nodes[0].address) as client:
            keys = [b"k%d" % i for i in range(20)]
            await asyncio.gather(*(client.put(key, b"1") for key in keys))
            cluster.move(SlotMap.of_ranges(2, [(0, 99, 0), (100, 16383, 1)]), publish=False)
            single = asyncio.ensure_future(asyncio.gather(*(client.put(key, b"2") for key in keys)))
            grouped = asyncio.ensure_future(client.batch([Operation.put(b"g" + key, b"3") for key in keys]))
            await nodes[0].wait_for_batches(2)
            cluster.publish()
            await single
            assert all(isinstance(r, Record) for r in await grouped)
        assert {cluster.value(key) for key in keys} == {b"2"}
        assert [cluster.times_applied(b"g" + key) for key in keys] == [1] * 20
    finally:
        await cluster.stop()


async def test_a_write_without_an_answer_ends_as_unknown_at_its_deadline(client: AsyncClient, first: FakeNode) -> None:
    first.answer = silent
    started = time.monotonic()
    with pytest.raises(OutcomeUnknownError, match="may or may not have been applied"):
        await client.put(b"k", b"v", timeout=0.2)
    assert 0.15 < time.monotonic() - started < 1


async def test_a_lost_write_that_is_then_refused_ends_as_unknown(client: AsyncClient, first: FakeNode) -> None:
    first.faults.append(applied_then_dropped)
    first.answer = refusing(kv_pb2.ERROR_CODE_UNAVAILABLE)
    with pytest.raises(OutcomeUnknownError, match="ERROR_CODE_UNAVAILABLE"):
        await client.put(b"k", b"v", timeout=0.4)


async def test_a_write_that_was_only_ever_refused_ends_as_not_applied_and_names_the_refusal(first: FakeNode) -> None:
    first.answer = refusing(kv_pb2.ERROR_CODE_TOO_FEW_REPLICAS)
    once = Backoff(first=60, most=60)  # so that the deadline finds no further try under way, which would be unknown
    async with await AsyncClient.connect([first.address], timeout=8, backoff=once) as client:
        with pytest.raises(DeadlineExceededError, match=r"nothing was applied .*TOO_FEW_REPLICAS"):
            await client.put(b"k", b"v", timeout=0.5)


async def test_a_write_that_could_never_be_sent_ends_as_not_applied(client: AsyncClient, first: FakeNode) -> None:
    await first.stop()
    with pytest.raises(DeadlineExceededError, match="nothing was applied"):
        await client.put(b"k", b"v", timeout=0.3)


async def test_a_read_without_an_answer_ends_at_its_deadline(client: AsyncClient, first: FakeNode) -> None:
    first.answer = silent
    with pytest.raises(DeadlineExceededError):
        await client.get(b"k", timeout=0.2)


async def test_silent_batches_that_nobody_waits_for_make_room_for_others(client: AsyncClient, first: FakeNode) -> None:
    first.faults.extend((silent, silent))
    for key in (b"a", b"b"):
        with pytest.raises(OutcomeUnknownError):
            await client.put(key, b"v", timeout=0.1)
    await client.put(b"c", b"v", timeout=1)


async def test_a_call_given_up_before_it_was_sent_is_never_sent(
    client: AsyncClient, cluster: FakeCluster, first: FakeNode
) -> None:
    put = asyncio.ensure_future(client.put(b"gone", b"v"))
    await asyncio.sleep(0)
    put.cancel()
    await client.put(b"k", b"v")
    assert cluster.times_applied(b"gone") == 0
    assert client._engine.under_way == 0


async def test_what_is_under_way_is_bounded_and_callers_wait_within_their_deadline(
    cluster: FakeCluster, first: FakeNode
) -> None:
    async with await AsyncClient.connect(first.address, limits=Limits(operations=4)) as client:
        first.frozen.clear()
        puts = [asyncio.ensure_future(client.put(b"k%d" % i, b"v", timeout=5)) for i in range(8)]
        await first.wait_for_batches(1)
        with pytest.raises(ResourceExhaustedError, match="4 operations"):
            await client.put(b"late", b"v", timeout=0.1)
        assert sum(len(b.operations) for b in first.batches) <= 4
        first.frozen.set()
        await asyncio.gather(*puts)
        assert client._engine.under_way == 0
    assert cluster.times_applied(b"late") == 0


async def test_closing_ends_every_call(client: AsyncClient, first: FakeNode) -> None:
    first.answer = silent
    sent = asyncio.ensure_future(client.put(b"k", b"v"))
    await first.wait_for_batches(1)
    await client.close()
    with pytest.raises(OutcomeUnknownError):
        await sent
    with pytest.raises(UnavailableError, match="closed"):
        await client.put(b"k", b"v")


async def test_a_stale_replica_is_left_for_another(client: AsyncClient, first: FakeNode, second: FakeNode) -> None:
    await client.put(b"k", b"v")
    for node in (first, second):
        node.faults.append(lambda _, request: refuse(request, kv_pb2.ERROR_CODE_TOO_STALE))
    record = await client.get(b"k", read_mode=ReadMode.ANY)
    assert record is not None
    assert {n.pod for n in (first, second) if any(b.read_mode == kv_pb2.READ_MODE_ANY for b in n.batches)} == {
        first.pod,
        second.pod,
    }


async def test_a_connection_that_hangs_is_noticed_and_what_it_owed_is_sent_again(
    cluster: FakeCluster, first: FakeNode, second: FakeNode
) -> None:
    proxy = await StuckProxy.before(first.address)
    real, first.address = first.address, proxy.address
    try:
        async with await AsyncClient.connect([first.address, second.address]) as client:
            await client.put(b"k", b"1")
            proxy.stick()
            put = asyncio.ensure_future(client.put(b"k", b"2"))
            await proxy.swallowed.wait()
            first.address = real
            proxy.refuse = True
            cluster.publish()
            started = time.monotonic()
            await put
            assert time.monotonic() - started < 5
        assert cluster.value(b"k") == b"2"
    finally:
        await proxy.close()


async def test_a_router_mode_client_sends_everything_to_the_address_given(
    cluster: FakeCluster, first: FakeNode, second: FakeNode
) -> None:
    cluster.lead(0, second.pod)
    second.cluster.leaders[0] = (3, first.pod, "r1")  # the fake answers wherever it is asked
    async with await AsyncClient.connect(first.address, mode="router") as client:
        await client.put(b"k", b"v")
    assert len(first.batches) == 1
    assert second.batches == []


async def test_the_same_fault_again_and_again_never_doubles_a_write(
    client: AsyncClient, cluster: FakeCluster, first: FakeNode, second: FakeNode
) -> None:
    """Every third batch is lost after it was applied, every third before, while the leader changes."""
    count = 0

    def flaky(node: FakeNode, request: kv_pb2.BatchRequest) -> kv_pb2.BatchResponse | None:
        nonlocal count
        count += 1
        if count % 3 == 0:
            applied_then_dropped(node, request)
        if count % 3 == 1 and count > 1:
            dropped(node, request)
        return node.execute(request)

    first.answer = second.answer = flaky
    outcomes: list[int | KVClusterError] = []

    async def writer(number: int) -> None:
        for i in range(10):
            outcomes.append(await client.put(b"%d-%d" % (number, i), b"v"))
            if number == 0 and i % 3 == 0:
                cluster.lead(0, second.pod if cluster.leaders[0][1] == first.pod else first.pod)

    await asyncio.gather(*(writer(number) for number in range(8)))
    assert len(outcomes) == 80
    assert len(cluster.applied) == 80
