"""The Redis door of three real node processes, by redis-py as it is; `tests/redis` has the rest of the clients."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import MovedError, RedisError

from kvlocal.cluster import LocalCluster
from kvlocal.ports import HOST
from tests.support.local_cluster import local_cluster

PATIENCE = 60.0


def port(cluster: LocalCluster, pod: str) -> int:
    return cluster.port(pod, "redis")


@asynccontextmanager
async def client(cluster: LocalCluster, pod: str) -> AsyncIterator[Redis]:
    """A plain client of one node."""
    async with Redis(host=HOST, port=port(cluster, pod)) as redis:
        yield redis


@asynccontextmanager
async def cluster_client(cluster: LocalCluster) -> AsyncIterator[RedisCluster]:
    """A cluster client that begins at a node that may lead or not, and repeats nothing by itself but what was moved."""
    async with RedisCluster(
        host=HOST,
        port=port(cluster, cluster.shape.pods[-1]),
        retry=Retry(NoBackoff(), 0),
        socket_timeout=5,
    ) as redis:
        yield redis


async def test_a_plain_client_on_the_leader(tmp_path: Path) -> None:
    """Commands, a pipeline in order, a value of the largest size, a scan; a follower says where the leader is."""
    async with local_cluster(tmp_path, router=False) as cluster:
        leader = await cluster.leader(0)
        async with client(cluster, leader) as redis:
            assert await redis.set("a", "1")
            assert await redis.incr("a") == 2
            large = b"x" * (1 << 20)
            assert await redis.set("large", large)
            assert await redis.get("large") == large
            pipeline = redis.pipeline(transaction=False)
            for i in range(500):
                pipeline.set(f"k{i}", i)
                pipeline.incr(f"k{i}")
                pipeline.get(f"k{i}")
            replies = await pipeline.execute()
            assert replies == [x for i in range(500) for x in (True, i + 1, b"%d" % (i + 1))]
            assert {key async for key in redis.scan_iter("k*", count=50)} == {b"k%d" % i for i in range(500)}
            assert await redis.dbsize() == 502
            assert await redis.wait(2, 1000) == 2
        follower = next(pod for pod in cluster.shape.pods if pod != leader)
        async with client(cluster, follower) as redis:
            with pytest.raises(MovedError) as moved:
                await redis.get("a")
            assert moved.value.port == port(cluster, leader)


async def test_increments_through_a_failover_are_counted_once(tmp_path: Path) -> None:
    """Four cluster clients increment one key while its leader is killed.

    No acknowledged increment is lost and none is done twice, though some of them end unknown.
    """
    acknowledged: list[int] = []
    unknown = 0
    stop = asyncio.Event()

    async def increment(cluster: LocalCluster) -> None:
        nonlocal unknown
        async with cluster_client(cluster) as redis:
            while not stop.is_set():
                try:
                    acknowledged.append(await redis.incr("n"))
                except (RedisError, OSError, TimeoutError) as e:
                    unknown += not str(e).startswith(("CLUSTERDOWN", "Hash slot not served", "TRYAGAIN"))
                    await asyncio.sleep(0.02)

    async def more(count: int) -> None:
        target = len(acknowledged) + count
        async with asyncio.timeout(PATIENCE):
            while len(acknowledged) < target:  # noqa: ASYNC110 - the clients tell nobody
                await asyncio.sleep(0.02)

    async with local_cluster(tmp_path, router=False) as cluster:
        tasks = [asyncio.create_task(increment(cluster)) for _ in range(4)]
        await more(200)
        before, leader = await cluster.state(0), await cluster.leader(0)
        await cluster.kill(leader)
        next_leader, _ = await cluster.wait_leader(0, before.epoch)
        await more(200)
        stop.set()
        await asyncio.gather(*tasks)
        async with client(cluster, next_leader) as redis:
            final = await redis.incrby("n", 0)

    assert next_leader != leader
    assert len(set(acknowledged)) == len(acknowledged)
    assert max(acknowledged) <= final
    assert len(acknowledged) <= final <= len(acknowledged) + unknown
