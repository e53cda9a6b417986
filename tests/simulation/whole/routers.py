"""A router: kvrouter's door and kvclient's engine as they are. The gRPC hop before it is a model: frames of a length."""

import asyncio
import struct
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, cast

from prometheus_client import CollectorRegistry

from kvclient.aio import AsyncClient
from kvclient.engine import Engine
from kvclient.grpc_transport import ChannelFactory
from kvclient.pipeline_transport import NodeTransport
from kvclient.placement import DirectPlacement
from kvclient.topology import Endpoint
from kvclient.transport import BatchStream, Receiver, TopologySource
from kvcoord.memory import MemoryCoordination
from kvcoord.view import ClusterView, ClusterWatch
from kvproto.v1 import kv_pb2
from kvrouter.door import KeyValueDoor
from kvrouter.metrics import RouterMetrics
from kvrouter.redis.door import RouterDoor
from kvrouter.topology import CoordinationSource
from tests.simulation.clock import Clock
from tests.simulation.timeline import Mark
from tests.simulation.whole.world import Actor

if TYPE_CHECKING:
    from tests.simulation.whole.cluster import WholeCluster

GRPC, REDIS = 7400, 6379
_LENGTH = struct.Struct("<I")


class NoStream:
    """What can't be opened."""

    def send(self, request: Any) -> None:
        raise AssertionError("nothing is sent before a stream is open")

    def close(self) -> None:
        pass


class NoGrpc:
    """The node's gRPC port, which nobody reaches in this world: batches go by frames alone."""

    def open(self, endpoint: Endpoint, receiver: Receiver) -> BatchStream:
        asyncio.get_running_loop().call_later(0.05, receiver.lost, f"{endpoint.address} is not reached")
        return NoStream()

    async def close(self) -> None:
        pass


def engine_of(source: TopologySource, rng: Random, loop: asyncio.AbstractEventLoop, *, session: bool) -> Engine:
    """Kvclient's engine over its own frames."""
    transport = NodeTransport(ChannelFactory(None))
    transport._grpc = cast("Any", NoGrpc())
    return Engine(
        transport=transport, source=source, placement=DirectPlacement(rng), rng=rng, loop=loop, session=session
    )


class Frames(asyncio.Protocol):
    """Frames of a length, for the hop that is gRPC in the real world."""

    def __init__(self, received: Callable[["Frames", bytes], None], lost: Callable[[], None]) -> None:
        self._received, self._lost = received, lost
        self._buffer = bytearray()
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                return
            frame = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            self._received(self, frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._lost()

    def send(self, message: bytes) -> None:
        if self.transport is not None:
            self.transport.write(_LENGTH.pack(len(message)) + message)


class _Call:
    """What the door asks of a gRPC call."""

    def __init__(self, seconds: float) -> None:
        self._until = asyncio.get_running_loop().time() + seconds

    def time_remaining(self) -> float:
        return self._until - asyncio.get_running_loop().time()

    async def abort(self, *what: Any) -> None:
        raise AssertionError(f"a batch is refused as a whole: {what}")


class Router:
    """One router, and those that take its place when it is killed."""

    actor: Actor
    session: MemoryCoordination
    watch: ClusterWatch

    def __init__(self, cluster: "WholeCluster", name: str) -> None:
        self.cluster, self.name = cluster, name
        self.loop = cluster.loop
        self._make()

    def _make(self) -> None:
        """A process, not started yet."""
        self.actor = Actor(self.loop, self.name, self.name)
        self.session = self.cluster.coordination.session(self.name)
        self.spread: list[Callable[[ClusterView], None]] = []  # who is told of every change of the cluster
        self.watch = ClusterWatch(self.session, self._changed)
        self.cluster.actors.append(self.actor)

    def start(self) -> None:
        self.actor.spawn(self._main(), "main")

    def kill(self) -> None:
        """SIGKILL."""
        self.loop.note(self.name, "ends", Mark.END)
        self.actor.kill(silently=False)
        self.session.crash()

    def start_again(self) -> None:
        """Another process in its place, which knows nothing of it; unless one is there."""
        if not self.actor.alive:
            self.loop.note(self.name, "starts", Mark.START)
            self._make()
            self.start()

    def pause(self) -> None:
        self.actor.paused = True
        self.cluster.show_away()

    def resume(self) -> None:
        if self.actor.alive and self.actor.paused:
            self.loop.note(self.name, "goes on after its pause", Mark.HEAL)
            self.actor.resume()
            self.cluster.show_away()

    async def _main(self) -> None:
        await self.session.start()
        self.watch.start()
        engine = engine_of(CoordinationSource(self.watch), self.loop.stream(self.name), self.loop, session=False)
        clock = Clock(self.loop, 1.0, 0.0, self.loop.stream(self.name).uniform(-300, 300))
        redis = RouterDoor(self.loop, clock)
        self.spread.append(redis.view_changed)
        redis.view_changed(self.watch.view)
        await redis.start(self.name, REDIS)
        door = KeyValueDoor(AsyncClient(engine), clock, RouterMetrics(CollectorRegistry()))
        engine.start()

        def received(frames: Frames, data: bytes) -> None:
            self.actor.spawn(self._answer(door, frames, data), "call")

        await self.loop.create_server(lambda: Frames(received, lambda: None), self.name, GRPC)

    def _changed(self, view: ClusterView) -> None:
        for tell in self.spread:
            tell(view)

    @staticmethod
    async def _answer(door: KeyValueDoor, frames: Frames, data: bytes) -> None:
        request = kv_pb2.BatchRequest.FromString(data)
        response = await door.Batch(request, cast("Any", _Call(request.timeout_ms / 1000)))
        response.id = request.id
        frames.send(response.SerializeToString())
