"""A router: coordination in, gRPC and HTTP out, the client's engine between."""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass

import structlog
from prometheus_client import CollectorRegistry

from kvclient.aio import AsyncClient
from kvclient.engine import Engine, Limits
from kvclient.placement import DirectPlacement
from kvclient.transport import Transport
from kvcommon.clock import Clock
from kvcommon.http import HttpServer
from kvcoord.contract import Coordination
from kvcoord.view import ClusterView, ClusterWatch
from kvrouter.door import ClusterDoor, KeyValueDoor
from kvrouter.metrics import RouterMetrics
from kvrouter.redis.door import Limits as RedisLimits
from kvrouter.redis.door import RouterDoor
from kvrouter.server import GrpcServer, ServerEngine
from kvrouter.topology import CoordinationSource

log = structlog.get_logger()

DRAIN_NOTICE = 0.2  # seconds between saying NOT_SERVING and taking no more calls


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where and how a router listens; port 0 takes a free one, but as Redis port it means none."""

    host: str
    grpc_port: int
    http_port: int
    redis_port: int = 0
    grpc_server: ServerEngine = "nghttp2"


class Router:
    """Serves from `start` to `close`."""

    def __init__(
        self,
        coordination: Coordination,
        transport: Transport,
        addresses: Addresses,
        *,
        clock: Clock,
        rng: random.Random,
        limits: Limits | None = None,
        redis_limits: RedisLimits | None = None,
    ) -> None:
        """Coordination is started and closed by the caller."""
        loop = asyncio.get_running_loop()
        self._addresses = addresses
        self._coordination = coordination
        self._watch = ClusterWatch(coordination, self._changed)
        self._engine = Engine(
            transport=transport,
            source=CoordinationSource(self._watch),
            placement=DirectPlacement(rng),
            rng=rng,
            loop=loop,
            limits=limits,
            session=False,
        )
        metrics = RouterMetrics(CollectorRegistry())
        metrics.show(self._watch)
        metrics.show_under_way(lambda: self._engine.under_way)
        key_value = KeyValueDoor(AsyncClient(self._engine), clock, metrics)
        self._grpc = GrpcServer(key_value, ClusterDoor(self._watch), addresses.grpc_server)
        self._redis = RouterDoor(loop, clock, redis_limits)
        metrics.show_redis(self._redis)
        self._http = HttpServer(
            ready=self.not_ready,
            status=self.status,
            registry=metrics.registry,
            host=addresses.host,
            port=addresses.http_port,
        )
        self._closing = False
        self._leaders: Mapping[int, str] = {}
        self._serving: asyncio.Task[None] | None = None
        self.grpc_port = 0
        self.redis_port = 0

    @property
    def http_port(self) -> int:
        """The port of probes and metrics, the true one after `start`."""
        return self._http.port

    def not_ready(self) -> str | None:
        """None when the router has a map to route by; losing coordination later changes nothing."""
        if self._closing:
            return "closing"
        return None if self._engine.view.slot_map is not None else "the map is not known yet: is coordination there?"

    def status(self) -> Mapping[str, object]:
        """What the router says of itself, for people."""
        view = self._watch.view
        return {
            "cluster_id": view.identity.cluster_id if view.identity else "",
            "map_version": view.slot_map.version if view.slot_map else 0,
            "leaders": {str(partition): pod for partition, pod in self._leaders.items()},
            "coordination_connected": self._coordination.connected,
            "operations_under_way": self._engine.under_way,
            "redis_clients": len(self._redis.connections),
        }

    async def start(self) -> None:
        """Begin to serve: the health service says SERVING once the map is known. Raises KVClusterError."""
        await self._http.start()
        self._watch.start()
        self._engine.start()
        self.grpc_port = await self._grpc.start(self._addresses.host, self._addresses.grpc_port)
        if self._addresses.redis_port:
            self.redis_port = await self._redis.start(self._addresses.host, self._addresses.redis_port)
        await self._grpc.set_serving(serving=False)
        self._serving = asyncio.create_task(self._serve_when_mapped(), name="wait for map")
        log.info("listening", grpc=self.grpc_port, http=self.http_port, redis=self.redis_port)

    async def close(self, grace: float) -> None:
        """Take no more calls, finish those under way within `grace` seconds, and let go of everything."""
        self._closing = True
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)
        await self._grpc.set_serving(serving=False)
        await asyncio.sleep(min(DRAIN_NOTICE, grace))
        await asyncio.gather(self._grpc.close(grace), self._redis.drain(grace))
        await self._engine.close()
        await self._watch.close()
        await self._http.close()

    async def _serve_when_mapped(self) -> None:
        await self._engine.wait_for_map()
        await self._grpc.set_serving(serving=True)
        log.info("serving", map_version=self._engine.view.map_version)

    def _changed(self, view: ClusterView) -> None:
        self._redis.view_changed(view)
        leaders = {
            partition: state.value.leader.replica.pod
            for partition, state in sorted(view.partitions.items())
            if state.value.leader is not None
        }
        if leaders != self._leaders:
            self._leaders = leaders
            log.info("leaders", leaders=leaders)
