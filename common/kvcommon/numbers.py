"""Every default number that more than one part must agree on; docs/settings.md is the same table for people."""

from dataclasses import dataclass

GRPC_PORT = 7400
REPLICATION_PORT = 7401
PIPELINE_PORT = 7402
REDIS_PORT = 6379
HTTP_PORT = 7480
ZOOKEEPER_PORT = 2181

MAX_KEY_BYTES = 4096
MAX_VALUE_BYTES = 1 << 20
MAX_BATCH_OPERATIONS = 1000
MAX_BATCH_BYTES = 4 << 20
MAX_GRPC_MESSAGE_BYTES = 8 << 20
SEGMENT_BYTES = 64 << 20
MIN_FREE_MIB = 256
MIN_VOLUME_MIB = 512
CLIENT_DEADLINE = 10.0
KEEPALIVE = 1.0
ZOOKEEPER_SESSION = 6.0
DEDUPLICATION_WINDOW = 600.0
DEDUPLICATION_BATCHES = 1024


def default_min_in_sync(replicas: int) -> int:
    """1 of 2, 2 of 3, 3 of 5."""
    return (replicas + 1) // 2


@dataclass(frozen=True, slots=True)
class Timing:
    """Replication's times, in seconds.

    A follower that acknowledged a message promises not to claim for `lease` from its receipt; the leader counts the
    same promise from the sending and takes off what two clocks may differ (rule 5).
    """

    heartbeat: float = 0.5
    lease: float = 2.0
    follower_timeout: float = 2.0
    clock_rate_error: float = 0.01  # of each machine's clock, as a fraction
    claim_head_start: float = 0.3  # what each in-sync follower gives the one before it in the list

    @property
    def leader_lease(self) -> float:
        """How long after sending an acknowledged message the leader may rely on the promise."""
        return self.lease * (1 - 2 * self.clock_rate_error)
