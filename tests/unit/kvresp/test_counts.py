"""What a door counts, as Prometheus and INFO show it."""

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest

from kvresp.counts import Counts, RedisCollector


@dataclass
class FakeDoor:
    """A door with fixed numbers."""

    counts: Counts = field(default_factory=Counts)
    connected: int = 5
    refused: int = 1
    clients: int = 3


def test_metrics_have_one_label_value_for_each_command_used() -> None:
    """And none that a client could make up."""
    door = FakeDoor()
    door.counts.of["get"].calls = 7
    door.counts.of["unknown"].calls = door.counts.of["unknown"].errors = 2
    registry = CollectorRegistry()
    registry.register(RedisCollector(door))
    lines = generate_latest(registry).decode().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        'kvcluster_redis_commands_total{command="get"} 7.0',
        'kvcluster_redis_commands_total{command="unknown"} 2.0',
        'kvcluster_redis_command_errors_total{command="get"} 0.0',
        'kvcluster_redis_command_errors_total{command="unknown"} 2.0',
        "kvcluster_redis_clients 3.0",
        "kvcluster_redis_connections_total 5.0",
        "kvcluster_redis_refused_connections_total 1.0",
    ]


def test_counts_begin_again_after_a_reset() -> None:
    """INFO's section is empty then."""
    counts = Counts()
    counts.of["set"].calls, counts.of["set"].errors = 3, 1
    assert counts.total == 3
    assert counts.describe() == {"cmdstat_set": "calls=3,failed_calls=1"}
    counts.reset()
    assert counts.describe() == {}
