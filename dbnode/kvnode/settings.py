"""The settings of a database node."""

from typing import Literal

from pydantic import Field

from kvcommon.numbers import (
    GRPC_PORT,
    HTTP_PORT,
    MIN_FREE_MIB,
    PIPELINE_PORT,
    REPLICATION_PORT,
    SEGMENT_BYTES,
    Timing,
)
from kvcommon.settings import Settings
from kvresp.connection import MAX_CLIENTS
from kvstore.options import StoreOptions

BALLAST_SHARE = 8  # the share of the least free space that is kept back for writes under way when it is used up


class NodeSettings(Settings):
    """A database node of KVCluster: one replica of one partition."""

    pod: str = Field(min_length=1, description="this pod's name, unique in the cluster")
    partition: int = Field(ge=0, lt=1024, description="the partition that this node has a replica of")
    cluster_id: str = Field(min_length=1, description="the cluster's UUID")
    coordination: str = Field(
        description="zookeeper://h1:2181,h2:2181/kvcluster/<id> or sqlite:///path/coordination.db"
    )
    data_dir: str = Field(default="/data", description="folder of this replica's log")
    host: str = Field(default="0.0.0.0", description="address to listen on")  # noqa: S104 - a pod's own address
    advertise_host: str = Field(default="127.0.0.1", description="address that others reach this node at")
    dns_name: str = Field(default="", description="DNS name that others may check")
    grpc_port: int = Field(default=GRPC_PORT, ge=0, le=65535, description="port for clients, 0: any free one")
    replication_port: int = Field(default=REPLICATION_PORT, ge=0, le=65535, description="port for other replicas")
    redis_port: int = Field(default=0, ge=0, le=65535, description="port of the Redis protocol (6379), 0: none")
    redis_announce_host: str = Field(
        default="", description="address that clients of the Redis protocol are sent to; empty: --advertise-host"
    )
    redis_max_clients: int = Field(default=MAX_CLIENTS, ge=1, description="connections of the Redis protocol")
    pipeline_port: int = Field(default=PIPELINE_PORT, ge=0, le=65535, description="port for clients' batches as frames")
    http_port: int = Field(default=HTTP_PORT, ge=0, le=65535, description="port of probes and metrics")
    durability: Literal["fsync", "memory"] = Field(default="fsync", description="what a write waits for")
    segment_bytes: int = Field(
        default=SEGMENT_BYTES, ge=4096, le=SEGMENT_BYTES, description="bytes of a file of the log; smaller: more files"
    )
    compaction: bool = Field(default=True, description="rewrite the log without what no longer counts")
    compaction_garbage: float = Field(
        default=0.4, gt=0, le=1, description="share of the log's segments that must be garbage to rewrite them"
    )
    compaction_rate: int = Field(
        default=16 << 20,
        ge=0,
        description="bytes per second that compaction reads for each segment that waits for it, 0: as fast as it goes",
    )
    tombstone_retention: float = Field(
        default=3600.0, ge=0, description="seconds that a delete stays in the log at least"
    )
    verify_every: float = Field(
        default=86400.0, ge=0, description="seconds in which all of the log is read and verified once, 0: never"
    )
    heartbeat: float = Field(
        default=Timing().heartbeat, gt=0, le=1, description="seconds between a leader's messages to a follower"
    )
    follower_timeout: float = Field(
        default=Timing().follower_timeout,
        ge=1,
        le=60,
        description="seconds of silence after which a follower is dropped",
    )
    min_free_mib: int = Field(
        default=MIN_FREE_MIB,
        ge=1,
        description="MiB of free disk below which a leader refuses writes; a follower leaves at a quarter",
    )
    termination_log: str = Field(
        default="/dev/termination-log", description="file that gets the run id for the kubelet, where it exists"
    )
    shutdown_timeout: float = Field(default=5.0, gt=0, description="seconds to hand over and leave after SIGTERM")

    @property
    def store_options(self) -> StoreOptions:
        """How the store is to work."""
        return StoreOptions(
            durability=self.durability,
            segment_bytes=self.segment_bytes,
            compaction=self.compaction,
            compaction_garbage=self.compaction_garbage,
            compaction_bytes_per_second=self.compaction_rate,
            tombstone_ms=int(self.tombstone_retention * 1000),
            ballast_bytes=(self.min_free_mib << 20) // BALLAST_SHARE,
        )

    @property
    def timing(self) -> Timing:
        """Replication's times. The lease is not among the settings: every replica must hold the same (rule 5)."""
        return Timing(heartbeat=self.heartbeat, follower_timeout=self.follower_timeout)
