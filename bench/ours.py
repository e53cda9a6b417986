"""KVCluster as it is measured: real processes, fsync, one partition of three replicas, and ways to speak to it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from kvclient import AsyncClient, Operation
from kvlocal.cluster import LocalCluster, Settings
from kvlocal.ports import free_ports
from kvlocal.shape import Shape
from kvproto.v1 import kv_pb2, kv_pb2_grpc

ONE_PARTITION = Shape("bench", partitions=1, replicas=3, min_in_sync=2)


@dataclass(frozen=True, slots=True)
class Doors:
    """The ways in."""

    cluster: LocalCluster
    leader: str  # when the cluster was new
    direct: AsyncClient  # straight to the leader
    routed: AsyncClient  # through the router
    unary: Any  # KeyValue stubs on one channel to the router

    @property
    def leader_address(self) -> str:
        """The leader's gRPC address."""
        return self.cluster.address(self.leader)

    def pids(self) -> dict[str, int]:
        """Process ids by what they do, when nothing has failed yet."""
        found: dict[str, int] = {}
        for pod in (self.leader, *(p for p in self.cluster.shape.pods if p != self.leader)):
            pid = self.cluster.pid(pod)
            assert pid is not None, pod
            found[("leader", "follower", "other follower")[min(len(found), 2)]] = pid
        return found


@asynccontextmanager
async def one_partition(folder: Path, *, settings: Settings | None = None) -> AsyncIterator[Doors]:
    """A new cluster in `folder`, and every way in."""
    async with LocalCluster(ONE_PARTITION, folder, settings) as cluster:
        nodes = [cluster.address(pod) for pod in cluster.shape.pods]
        async with (
            await AsyncClient.connect(nodes) as direct,
            await AsyncClient.connect(cluster.router_address, mode="router") as routed,
            grpc.aio.insecure_channel(cluster.router_address) as channel,
        ):
            yield Doors(cluster, await cluster.leader(0), direct, routed, kv_pb2_grpc.KeyValueStub(channel))


@asynccontextmanager
async def another_router(cluster: LocalCluster, *arguments: str) -> AsyncIterator[str]:
    """One more router process of the cluster, as more would stand behind one port, with more flags; its address."""
    port, http = free_ports(2)
    url, cluster_id = cluster.folder.coordination_url(cluster.remembered), cluster.remembered.cluster_id
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kvrouter.main", "--coordination", url, "--cluster-id", cluster_id,
        "--host", "127.0.0.1", "--grpc-port", str(port), "--http-port", str(http), "--redis-port", "0",
        *arguments, env={**os.environ, "KV_LOG_LEVEL": "error"},
    )  # fmt: skip
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await asyncio.wait_for(channel.channel_ready(), 30)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


def unary_put(stub: Any) -> Callable[[bytes, bytes], Any]:
    """One gRPC call per put."""
    return lambda key, value: stub.Put(kv_pb2.PutRequest(key=key, value=value))


def unary_get(stub: Any) -> Callable[[bytes], Any]:
    """One gRPC call per get."""
    return lambda key: stub.Get(kv_pb2.GetRequest(key=key))


async def put_many(client: AsyncClient, pairs: Sequence[tuple[bytes, bytes]]) -> None:
    """One batch of puts; raises what the first failed one raised."""
    for result in await client.batch([Operation.put(key, value) for key, value in pairs]):
        if isinstance(result, Exception):
            raise result
