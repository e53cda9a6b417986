"""What the operator counts, for Prometheus."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """The operator's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.active = Gauge("kvoperator_active", "1 while this operator holds the lease", registry=self.registry)
        self.clusters = Gauge("kvoperator_clusters", "KVClusters looked after", registry=self.registry)
        self.deaths = Counter("kvoperator_deaths_reported", "Words of death passed on", registry=self.registry)
        self._rounds = Histogram("kvoperator_round_seconds", "Time of one round of one cluster", registry=self.registry)
        self._failed = Counter("kvoperator_rounds_failed", "Rounds that could not be finished", registry=self.registry)

    @contextmanager
    def round(self) -> Iterator[None]:
        """Around one round."""
        with self._rounds.time(), self._failed.count_exceptions():
            yield
