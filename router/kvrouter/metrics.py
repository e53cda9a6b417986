"""What a router counts, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from kvcoord.view import ClusterWatch
from kvrouter.redis.door import RouterDoor


class RouterMetrics:
    """Counters of the doors, gauges of what is known."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.operations = Counter("kvcluster_router_operations", "Operations forwarded", registry=registry)
        self.refused = Counter(
            "kvcluster_router_invalid_requests", "Requests refused as invalid before forwarding", registry=registry
        )

    def show_under_way(self, count: Callable[[], int]) -> None:
        """Show how many operations are forwarded and not answered."""
        gauge = Gauge("kvcluster_router_operations_under_way", "Operations not answered", registry=self.registry)
        gauge.set_function(count)

    def show_redis(self, door: RouterDoor) -> None:
        """Show what goes through the Redis door."""
        commands = Gauge(
            "kvcluster_router_redis_commands", "Redis commands done since start or reset", registry=self.registry
        )
        commands.set_function(lambda: door.done)
        clients = Gauge("kvcluster_router_redis_clients", "Redis clients connected", registry=self.registry)
        clients.set_function(lambda: len(door.connections))
        held = Gauge(
            "kvcluster_router_redis_held_bytes", "Of Redis commands that are not answered yet", registry=self.registry
        )
        held.set_function(lambda: door.held_bytes)

    def show(self, watch: ClusterWatch) -> None:
        """Show what is known of the cluster."""
        version = Gauge("kvcluster_router_map_version", "Of the map routed by; 0: none", registry=self.registry)
        version.set_function(lambda: watch.view.slot_map.version if watch.view.slot_map else 0)
        leaderless = Gauge(
            "kvcluster_router_partitions_without_leader", "Whose leader's address is not known", registry=self.registry
        )
        leaderless.set_function(
            lambda: (
                sum(watch.view.leader_of(p) is None for p in watch.view.slot_map.partitions)
                if watch.view.slot_map
                else 0
            )
        )
