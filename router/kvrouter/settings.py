"""The settings of a router."""

from pydantic import Field

from kvcommon.numbers import GRPC_PORT, HTTP_PORT, REDIS_PORT
from kvcommon.settings import Settings
from kvresp.connection import MAX_CLIENTS
from kvrouter.server import ServerEngine


class RouterSettings(Settings):
    """A router of KVCluster: the whole cluster behind one address."""

    coordination: str = Field(
        description="zookeeper://h1:2181,h2:2181/kvcluster/<id> or sqlite:///path/coordination.db"
    )
    cluster_id: str = Field(min_length=1, description="the cluster's UUID")
    host: str = Field(default="0.0.0.0", description="address to listen on")  # noqa: S104 - a pod's own address
    grpc_port: int = Field(default=GRPC_PORT, ge=0, le=65535, description="port for clients, 0: any free one")
    grpc_server: ServerEngine = Field(
        default="nghttp2",
        description="what speaks gRPC on that port: nghttp2, or grpcio, which takes ten times the CPU for a unary call",
    )
    redis_port: int = Field(
        default=REDIS_PORT, ge=0, le=65535, description="port of the Redis protocol, 0: it is not spoken"
    )
    redis_max_clients: int = Field(default=MAX_CLIENTS, ge=1, description="connections of the Redis protocol")
    http_port: int = Field(default=HTTP_PORT, ge=0, le=65535, description="port of probes and metrics")
    shutdown_timeout: float = Field(default=5.0, gt=0, description="seconds to finish what is under way after SIGTERM")
