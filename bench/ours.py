"""KVCluster as it is measured: real processes, fsync, one partition of three replicas, and ways to speak to it."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from kvclient import AsyncClient, Operation
from kvlocal.cluster import LocalCluster, Settings
from kvlocal.shape import Shape
from kvproto.v1 import kv_pb2, kv_pb2_grpc

ONE_PARTITION = Shape("bench", partitions=1, replicas=3, min_in_sync=2)


@dataclass(frozen=True, slots=True)
class Doors:
    """The ways in."""

    cluster: LocalCluster
    direct: AsyncClient  # straight to the leader
    routed: AsyncClient  # through the router
    unary: Any  # KeyValue stubs on one channel to the router


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
            yield Doors(cluster, direct, routed, kv_pb2_grpc.KeyValueStub(channel))


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
