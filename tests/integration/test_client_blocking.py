"""The blocking client against a fake node over real gRPC."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from kvclient import Client, ClientClosedError, NotFoundError, Operation, OutcomeUnknownError, Record, UnavailableError
from tests.support.fake_node import FakeCluster, silent

T = TypeVar("T")


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    cluster = FakeCluster()
    await cluster.node("c-p0-0")
    yield cluster
    await cluster.stop()


async def with_client(cluster: FakeCluster, work: Callable[[Client], T]) -> T:
    """Run in a thread, as the fake node needs the loop."""

    def run() -> T:
        with Client.connect(cluster.nodes["c-p0-0"].address) as client:
            return work(client)

    return await asyncio.to_thread(run)


async def test_every_call_does_what_its_asyncio_twin_does(cluster: FakeCluster) -> None:
    def work(client: Client) -> None:
        version = client.create(b"k", b"1")
        assert client.get(b"k") == Record(b"k", b"1", version)
        version = client.update(b"k", b"2", expected_version=version)
        version = client.put(b"k", b"3", expected_version=version)
        results = client.batch([Operation.get(b"k"), Operation.get(b"missing")])
        assert results[0] == Record(b"k", b"3", version)
        assert isinstance(results[1], NotFoundError)
        client.delete(b"k", expected_version=version)
        assert client.get(b"k") is None

    await with_client(cluster, work)


async def test_calls_of_many_threads_are_gathered(cluster: FakeCluster) -> None:
    node = cluster.nodes["c-p0-0"]
    node.frozen.clear()
    loop = asyncio.get_running_loop()

    def work(client: Client) -> None:
        with ThreadPoolExecutor(50) as threads:
            puts = [threads.submit(client.put, b"%d" % i, b"v") for i in range(50)]
            threading.Timer(0.3, loop.call_soon_threadsafe, (node.frozen.set,)).start()
            assert len({put.result() for put in puts}) == 50

    await with_client(cluster, work)
    assert len(node.batches) < 10


async def test_errors_are_raised_in_the_calling_thread(cluster: FakeCluster) -> None:
    cluster.nodes["c-p0-0"].answer = silent

    def work(client: Client) -> None:
        with pytest.raises(OutcomeUnknownError):
            client.put(b"k", b"v", timeout=0.1)

    await with_client(cluster, work)


async def test_a_closed_client_says_so_and_leaves_no_thread(cluster: FakeCluster) -> None:
    def work() -> None:
        client = Client.connect(cluster.nodes["c-p0-0"].address)
        client.close()
        client.close()
        with pytest.raises(ClientClosedError):
            client.get(b"k")

    await asyncio.to_thread(work)
    assert "kvclient" not in {thread.name for thread in threading.enumerate()}


async def test_connecting_to_nobody_leaves_no_thread() -> None:
    def work() -> None:
        with pytest.raises(UnavailableError):
            Client.connect("127.0.0.1:1", timeout=0.2)

    await asyncio.to_thread(work)
    assert "kvclient" not in {thread.name for thread in threading.enumerate()}
