"""What a door counts of commands and connections, and how INFO and Prometheus show it."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kvresp.commands import COMMANDS


class Count:
    """Of one command: how often it was called, how often the reply was an error."""

    __slots__ = ("calls", "errors")

    def __init__(self) -> None:
        self.calls = self.errors = 0


class Counts:
    """One `Count` for each command of the table, by name, and one for all that are unknown."""

    def __init__(self) -> None:
        self.of: dict[str, Count] = {name: Count() for name in (*COMMANDS, "unknown")}

    def reset(self) -> None:
        """CONFIG RESETSTAT."""
        for count in self.of.values():
            count.calls = count.errors = 0

    @property
    def total(self) -> int:
        """All calls."""
        return sum(c.calls for c in self.of.values())

    def used(self) -> Iterable[tuple[str, Count]]:
        """Those that were called."""
        return ((name, c) for name, c in self.of.items() if c.calls)

    def describe(self) -> Mapping[str, object]:
        """INFO's section Commandstats."""
        return {f"cmdstat_{name}": f"calls={c.calls},failed_calls={c.errors}" for name, c in self.used()}


class Counted(Protocol):
    """A door, as far as it is counted."""

    counts: Counts
    connected: int
    refused: int

    @property
    def clients(self) -> int:
        """How many are connected now."""
        ...


class RedisCollector(Collector):
    """Prometheus metrics of a door; the label `command` has the table's names only."""

    def __init__(self, door: Counted) -> None:
        self._door = door

    def collect(self) -> list[Metric]:
        """The metrics of this moment."""
        door = self._door
        calls = CounterMetricFamily(
            "kvcluster_redis_commands", "commands of the Redis protocol taken", labels=["command"]
        )
        failed = CounterMetricFamily(
            "kvcluster_redis_command_errors", "commands that were answered with an error", labels=["command"]
        )
        for name, count in door.counts.used():
            calls.add_metric([name], count.calls)
            failed.add_metric([name], count.errors)
        now = GaugeMetricFamily("kvcluster_redis_clients", "connections of the Redis protocol", value=door.clients)
        made = CounterMetricFamily("kvcluster_redis_connections", "connections ever made", value=door.connected)
        refused = CounterMetricFamily(
            "kvcluster_redis_refused_connections", "connections refused because of too many", value=door.refused
        )
        return [calls, failed, now, made, refused]
