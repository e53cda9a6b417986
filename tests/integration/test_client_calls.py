"""The asyncio client against fake nodes over real gRPC: what each call means."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from kvclient import (
    AlreadyExistsError,
    AsyncClient,
    InvalidArgumentError,
    NotFoundError,
    Operation,
    ReadMode,
    Record,
    UnavailableError,
    VersionMismatchError,
)
from tests.support.fake_node import FakeCluster


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    cluster = FakeCluster(partitions=3)
    for partition in range(3):
        await cluster.node(f"c-p{partition}-0", partition)
    yield cluster
    await cluster.stop()


@pytest.fixture
async def client(cluster: FakeCluster) -> AsyncIterator[AsyncClient]:
    async with await AsyncClient.connect(cluster.nodes["c-p1-0"].address) as client:
        yield client


async def test_what_was_put_is_got_with_its_version(client: AsyncClient) -> None:
    version = await client.put(b"k", b"v")
    assert await client.get(b"k") == Record(b"k", b"v", version)


async def test_a_missing_key_is_none_for_get_and_an_error_for_update_and_delete(client: AsyncClient) -> None:
    assert await client.get(b"missing") is None
    with pytest.raises(NotFoundError):
        await client.update(b"missing", b"v")
    with pytest.raises(NotFoundError):
        await client.delete(b"missing")


async def test_create_of_an_existing_key_names_its_version(client: AsyncClient) -> None:
    version = await client.create(b"k", b"v")
    with pytest.raises(AlreadyExistsError) as caught:
        await client.create(b"k", b"w")
    assert caught.value.found_version == version


async def test_an_expected_version_is_compared(client: AsyncClient) -> None:
    version = await client.put(b"k", b"1", expected_version=0)
    with pytest.raises(VersionMismatchError) as caught:
        await client.put(b"k", b"2", expected_version=version + 5)
    assert caught.value.found_version == version
    deleted = await client.delete(b"k", expected_version=version)
    assert deleted > version
    assert await client.get(b"k") is None


async def test_concurrent_calls_go_to_all_partitions_in_few_batches(client: AsyncClient, cluster: FakeCluster) -> None:
    keys = [f"key-{i}".encode() for i in range(300)]
    await asyncio.gather(*(client.put(key, key) for key in keys))
    assert [record.value for record in await asyncio.gather(*(client.get(k) for k in keys)) if record] == keys
    for node in cluster.nodes.values():
        assert 2 <= len(node.batches) <= 4, "a batch of writes and one of reads, gathered in one turn of the loop"
        assert {len({o.kind for o in b.operations}) for b in node.batches} == {1}, "reads and writes travel apart"


async def test_an_explicit_batch_answers_in_order_over_partitions(client: AsyncClient, cluster: FakeCluster) -> None:
    keys = [f"key-{i}".encode() for i in range(20)]
    results = await client.batch([Operation.put(key, key) for key in keys])
    assert [r.key for r in results if isinstance(r, Record)] == keys
    assert sum(len(node.batches) for node in cluster.nodes.values()) == 3
    mixed = await client.batch(
        [Operation.get(keys[0]), Operation.put(keys[0], b"new"), Operation.get(keys[0]), Operation.get(b"missing")]
    )
    assert [r.value for r in mixed if isinstance(r, Record)] == [keys[0], b"", b"new"]
    assert isinstance(mixed[3], NotFoundError)


async def test_a_later_read_of_any_replica_says_what_the_session_has_seen(
    client: AsyncClient, cluster: FakeCluster
) -> None:
    version = await client.put(b"k", b"v")
    assert await client.get(b"k", read_mode=ReadMode.BOUNDED, max_lag=0.5) is not None
    owner = next(node for node in cluster.nodes.values() if node.batches)
    assert owner.batches[-1].observed_version == version
    assert owner.batches[-1].max_lag_ms == 500


@pytest.mark.parametrize("key", [b"", b"k" * 4097, "text", None])
async def test_a_key_that_can_not_be_sent_is_refused_at_once(client: AsyncClient, key: bytes) -> None:
    with pytest.raises(InvalidArgumentError, match="a key"):
        await client.get(key)


async def test_a_value_that_can_not_be_sent_is_refused_at_once(client: AsyncClient) -> None:
    with pytest.raises(InvalidArgumentError, match="at most 1048576 bytes; got 1048577"):
        await client.put(b"k", bytes((1 << 20) + 1))
    with pytest.raises(InvalidArgumentError, match="operation 1 of the batch"):
        await client.batch([Operation.get(b"k"), Operation.get(b"")])


async def test_connecting_to_nobody_says_who_did_not_answer() -> None:
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        await AsyncClient.connect("127.0.0.1:1", timeout=0.3)
