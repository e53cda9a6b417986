"""The router's gRPC port."""

from typing import Literal

from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from kvcommon.errors import KVClusterError
from kvcommon.numbers import MAX_GRPC_MESSAGE_BYTES
from kvproto.v1 import cluster_pb2, cluster_pb2_grpc, kv_pb2, kv_pb2_grpc
from kvrouter.direct import DirectKeyValue
from kvrouter.door import ClusterDoor, KeyValueDoor
from kvrouter.rpc.server import Server

_KEY_VALUE = kv_pb2.DESCRIPTOR.services_by_name["KeyValue"].full_name
_CLUSTER = cluster_pb2.DESCRIPTOR.services_by_name["Cluster"].full_name


ServerEngine = Literal["grpcio", "nghttp2"]


class GrpcServer:
    """KeyValue, Cluster, health and reflection on one port."""

    def __init__(self, key_value: KeyValueDoor, cluster: ClusterDoor, engine: ServerEngine) -> None:
        """`engine`: who speaks HTTP/2 and gRPC on the port; see docs/settings.md."""
        self._server = _grpcio() if engine == "grpcio" else _nghttp2(key_value)
        kv_pb2_grpc.add_KeyValueServicer_to_server(key_value, self._server)
        cluster_pb2_grpc.add_ClusterServicer_to_server(cluster, self._server)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (_KEY_VALUE, _CLUSTER, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self, host: str, port: int) -> int:
        """Serve; returns the port. Raises KVClusterError when it can't be had."""
        try:
            bound = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise KVClusterError(
                f"can't serve gRPC on {host}:{port}; set another --grpc-port, or end what holds this one"
            ) from error
        await self._server.start()
        return bound

    async def set_serving(self, *, serving: bool) -> None:
        """What health checks are told."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", _KEY_VALUE, _CLUSTER):
            await self._health.set(name, status)

    async def close(self, grace: float) -> None:
        """Take no more calls; those under way have `grace` seconds."""
        await self._server.stop(grace)


def _grpcio() -> aio.Server:
    return aio.server(
        options=[
            ("grpc.max_receive_message_length", MAX_GRPC_MESSAGE_BYTES),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 500),
            ("grpc.http2.max_ping_strikes", 0),
        ]
    )


def _nghttp2(key_value: KeyValueDoor) -> aio.Server:
    server = Server(MAX_GRPC_MESSAGE_BYTES)
    server.add_direct(DirectKeyValue(key_value).methods())
    return server
