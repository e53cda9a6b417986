"""The topology over gRPC: followed on one server, asked of others when what it says looks old."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence

from grpc import aio

from kvclient.grpc_transport import ChannelFactory, describe, ready
from kvproto.v1 import cluster_pb2, cluster_pb2_grpc

_ASK_AT_ONCE = 3  # servers asked by one poke
_ASK_TIMEOUT = 1.0  # seconds
_POKE_INTERVAL = 0.1  # seconds, at least, between two rounds of asking
_RETRY_FIRST, _RETRY_MOST = 0.05, 0.5  # seconds between rounds over all servers
_OLD_ANSWERS = 16


class GrpcTopologySource:
    """`Cluster.WatchTopology` of any seed or member; the next one when it fails. It is a `transport.TopologySource`.

    With `seeds_only` the members are never asked: for clients that can reach the routers only.
    """

    def __init__(
        self, seeds: Sequence[str], channels: ChannelFactory, rng: random.Random, *, seeds_only: bool = False
    ) -> None:
        self._seeds = tuple(seeds)
        self._members: tuple[str, ...] = ()
        self._channels = channels
        self._rng = rng
        self._seeds_only = seeds_only
        self._heard: asyncio.Queue[cluster_pb2.Topology] = asyncio.Queue(_OLD_ANSWERS)
        self._followed = ""
        self._asking: asyncio.Task[None] | None = None
        self._trouble: dict[str, str] = {}

    async def watch(self) -> AsyncIterator[cluster_pb2.Topology]:
        follower = asyncio.get_running_loop().create_task(self._follow(), name="kvclient-watch-topology")
        try:
            while True:
                topology = await self._heard.get()
                if not self._seeds_only:
                    self._members = tuple(m.grpc_address for m in topology.members if m.connected and m.grpc_address)
                yield topology
        finally:
            tasks = [task for task in (follower, self._asking) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def poke(self) -> None:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask_others(), name="kvclient-ask-topology")

    @property
    def trouble(self) -> str:
        return "; ".join(f"{address}: {reason}" for address, reason in sorted(self._trouble.items()))

    def _addresses(self) -> list[str]:
        addresses = list(dict.fromkeys((*self._seeds, *self._members)))
        self._rng.shuffle(addresses)
        return addresses

    async def _follow(self) -> None:
        delay = _RETRY_FIRST
        while True:
            heard = False
            for address in self._addresses():
                heard = await self._follow_one(address) or heard
            delay = _RETRY_FIRST if heard else min(2 * delay, _RETRY_MOST)
            await asyncio.sleep(delay * (0.5 + 0.5 * self._rng.random()))

    async def _follow_one(self, address: str) -> bool:
        """Follow one server until it fails; whether it said anything."""
        heard = False
        channel = self._channels(address)
        try:
            await ready(channel)
            call: aio.UnaryStreamCall[cluster_pb2.WatchTopologyRequest, cluster_pb2.Topology]
            call = cluster_pb2_grpc.ClusterStub(channel).WatchTopology(cluster_pb2.WatchTopologyRequest())
            async for topology in call:
                heard = True
                self._followed = address
                self._trouble.clear()
                await self._heard.put(topology)
            self._trouble[address] = "the server ended the stream"
        except (aio.AioRpcError, ConnectionError, asyncio.InvalidStateError) as error:
            self._trouble[address] = describe(error)
        finally:
            self._followed = ""
            await channel.close()
        return heard

    async def _ask_others(self) -> None:
        others = [address for address in self._addresses() if address != self._followed]
        await asyncio.gather(*(self._ask(address) for address in others[:_ASK_AT_ONCE]))
        await asyncio.sleep(_POKE_INTERVAL)

    async def _ask(self, address: str) -> None:
        channel = self._channels(address)
        try:
            with contextlib.suppress(aio.AioRpcError, ConnectionError, asyncio.QueueFull):
                await ready(channel)
                stub = cluster_pb2_grpc.ClusterStub(channel)
                topology = await stub.GetTopology(cluster_pb2.GetTopologyRequest(), timeout=_ASK_TIMEOUT)
                self._heard.put_nowait(topology)
        finally:
            await channel.close()
