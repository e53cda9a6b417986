"""A transport of lists and a topology that is given: what the engine is tested over without a network."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace

from kvclient.engine import Engine, Limits
from kvclient.placement import DirectPlacement
from kvclient.topology import Endpoint
from kvclient.transport import Receiver
from kvcommon.slotmap import SlotMap
from kvproto.pipeline import Request, ResultTuple, decode_answer, encode_answer
from kvproto.v1 import cluster_pb2, kv_pb2


def topology(epoch: int = 1, leader: str = "a", partitions: int = 1) -> cluster_pb2.Topology:
    """As many partitions, all of one leader; pod x is at address x:1. A map of more partitions is a later one."""
    return cluster_pb2.Topology(
        cluster_id="c",
        map_version=partitions,
        slots=[
            cluster_pb2.SlotRange(first=r.first, last=r.last, partition=r.partition)
            for r in SlotMap.even(partitions).ranges
        ],
        partitions=[
            cluster_pb2.Partition(partition=p, epoch=epoch, leader=leader, leader_run="r") for p in range(partitions)
        ],
        members=[cluster_pb2.Member(pod=pod, run="r", grpc_address=f"{pod}:1", connected=True) for pod in "ab"],
    )


class ListStream:
    """Requests pile up in `sent` until they are answered."""

    def __init__(self, address: str, receiver: Receiver) -> None:
        self.address = address
        self.receiver = receiver
        self.sent: list[Request] = []
        self.closed = False
        self._version = 0

    def send(self, request: Request) -> None:
        self.sent.append(replace(request))

    def close(self) -> None:
        self.closed = True

    def answer(self, *, value: bytes = b"", error: kv_pb2.Error | None = None) -> Request:
        """Answer the oldest request, all operations alike; returns it."""
        request = self.sent.pop(0)
        results: list[ResultTuple] = []
        for _ in request.operations:
            self._version += 1
            results.append((0, b"", error) if error else (self._version, value, None))
        self.receiver.answered(*decode_answer(encode_answer(request.id, results)[6:]))
        return request


class ListTransport:
    """Streams open at once, or not at all while `down`."""

    def __init__(self) -> None:
        self.streams: list[ListStream] = []
        self.down = False

    def open(self, endpoint: Endpoint, receiver: Receiver) -> ListStream:
        stream = ListStream(endpoint.address, receiver)
        self.streams.append(stream)
        loop = asyncio.get_running_loop()
        loop.call_soon(*((receiver.lost, "down") if self.down else (receiver.opened,)))
        return stream

    async def close(self) -> None:
        return

    @property
    def stream(self) -> ListStream:
        """The newest."""
        return self.streams[-1]


class GivenSource:
    """Says what is put into it."""

    trouble = ""

    def __init__(self) -> None:
        self.said: asyncio.Queue[cluster_pb2.Topology] = asyncio.Queue()
        self.pokes = 0

    async def watch(self) -> AsyncIterator[cluster_pb2.Topology]:
        while True:
            yield await self.said.get()

    def poke(self) -> None:
        self.pokes += 1


async def engine_over(transport: ListTransport, source: GivenSource, limits: Limits | None = None) -> Engine:
    """A started engine that knows `topology()`."""
    rng = random.Random(1)
    engine = Engine(
        transport=transport,
        source=source,
        placement=DirectPlacement(rng),
        rng=rng,
        loop=asyncio.get_running_loop(),
        limits=limits,
    )
    source.said.put_nowait(topology())
    engine.start()
    await engine.wait_for_map()
    return engine


async def turns(count: int = 8) -> None:
    """Let what is scheduled run."""
    for _ in range(count):
        await asyncio.sleep(0)
