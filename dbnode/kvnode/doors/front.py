"""All doors of a node, opened and closed together: gRPC, batches as frames, and Redis where it is asked for."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from kvcommon.clock import Clock
from kvcoord.view import ClusterWatch
from kvnode.doors.answers import Errors
from kvnode.doors.grpc import ClusterDoor, GrpcServer, KeyValueDoor
from kvnode.doors.pipeline import PipelineDoor
from kvnode.doors.redis import RedisDoor, RedisSettings
from kvnode.service import Service
from kvnode.settings import NodeSettings
from kvnode.shell.host import Host
from kvproto.v1 import cluster_pb2
from kvresp.counts import RedisCollector

CLOSING_GRACE = 0.2  # seconds for gRPC calls that are under way


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where clients reach this node, as host:port; empty: not at all."""

    grpc: str
    pipeline: str
    redis: str


class Doors:
    """The doors of one replica's service."""

    def __init__(
        self,
        settings: NodeSettings,
        host: Host,
        service: Service,
        watch: ClusterWatch,
        *,
        clock: Clock,
        status: Callable[[], cluster_pb2.NodeStatus],
        registry: CollectorRegistry,
    ) -> None:
        self._settings = settings
        errors = Errors(watch, settings.partition)
        self._grpc = GrpcServer(KeyValueDoor(service, clock, errors), ClusterDoor(watch, status))
        self._pipeline = PipelineDoor(service, clock, errors)
        told = RedisSettings(
            settings.cluster_id, settings.pod, settings.durability == "fsync", settings.redis_max_clients
        )
        self._redis = RedisDoor(
            host, service, view=lambda: watch.view, clock=clock, number=secrets.randbelow, settings=told
        )
        registry.register(RedisCollector(self._redis))

    async def open(self) -> Addresses:
        """Listen on every port. Raises KVClusterError when one can't be had."""
        settings, at = self._settings, self._settings.advertise_host
        grpc = await self._grpc.start(settings.host, settings.grpc_port)
        pipeline = await self._pipeline.start(settings.host, settings.pipeline_port)
        redis = ""
        if settings.redis_port:
            port = await self._redis.start(settings.host, settings.redis_port)
            redis = f"{settings.redis_announce_host or at}:{port}"
        return Addresses(f"{at}:{grpc}", f"{at}:{pipeline}", redis)

    async def set_serving(self, *, serving: bool) -> None:
        """What gRPC's health checks are told."""
        await self._grpc.set_serving(serving=serving)

    async def close(self) -> None:
        """Take no more; what is under way has a moment."""
        await self._grpc.close(CLOSING_GRACE)
        self._pipeline.close()
        await self._redis.close()
