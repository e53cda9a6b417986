"""What a node says of itself: status, readiness, metrics."""

from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate

from google.protobuf.json_format import MessageToDict
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from kvcoord.contract import RunId
from kvnode.core.doubt import Loss
from kvnode.core.messages import RefuseReason
from kvnode.core.types import Role
from kvnode.damage import remedy
from kvnode.shell.host import Host
from kvproto.v1 import cluster_pb2

_ROLES = {
    Role.LEADER: cluster_pb2.ROLE_LEADER,
    Role.FOLLOWER: cluster_pb2.ROLE_FOLLOWER,
    Role.CLAIMING: cluster_pb2.ROLE_CLAIMING,
    Role.FAILED: cluster_pb2.ROLE_FAILED,
}


SYNC_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class SyncTimes(Collector):
    """Seconds that each write and sync of the log took, as a histogram; a Histogram's own locks cost more than all else of a sync.

    One thread at a time tells it.
    """

    def __init__(self, registry: CollectorRegistry, me: RunId, partition: int) -> None:
        self._labels = (me.replica.pod, str(partition))
        self._counts = [0] * (len(SYNC_BUCKETS) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, seconds: float) -> None:
        """One took so long."""
        self._counts[bisect_left(SYNC_BUCKETS, seconds)] += 1
        self._sum += seconds

    def collect(self) -> list[Metric]:
        """Of all so far."""
        family = HistogramMetricFamily(
            "kvcluster_node_sync_seconds",
            "seconds that a write of the log and its sync took",
            labels=("pod", "partition"),
        )
        bounds = [*map(floatToGoString, SYNC_BUCKETS), "+Inf"]
        family.add_metric(self._labels, list(zip(bounds, accumulate(self._counts), strict=True)), self._sum)
        return [family]


class Reporter(Collector):
    """Reads a host when asked; decides nothing."""

    def __init__(self, host: Host, registry: CollectorRegistry) -> None:
        self.host = host
        registry.register(self)

    def status(self) -> cluster_pb2.NodeStatus:
        """The API's status of this node."""
        core, store, me = self.host.core, self.host.store, self.host.config.me
        return cluster_pb2.NodeStatus(
            pod=me.replica.pod,
            partition=self.host.config.partition,
            incarnation=me.replica.incarnation,
            run=me.run,
            role=_ROLES[core.role],
            serving=self._serving(),
            in_sync=core.in_sync,
            epoch=core.epoch,
            end_index=core.end.index,
            durable_index=core.durable,
            commit_index=core.commit,
            applied_index=store.applied,
            keys=store.keys,
            log_bytes=store.log_bytes,
            message="; ".join(text for text in (self.not_ready(), self._lost()) if text),
        )

    def status_json(self) -> Mapping[str, object]:
        """The same as a JSON object with the proto's field names."""
        return MessageToDict(self.status(), preserving_proto_field_name=True, always_print_fields_with_no_presence=True)

    def _lost(self) -> str:
        """That coordination's data is gone or older, and what putting it back waits for."""
        loss = self.host.core.loss
        if loss is None:
            return ""
        what = "is missing" if loss is Loss.MISSING else "is older than what this replica knows"
        return f"the partition's state in coordination {what}: its data was lost. {self.host.recovery.note}".strip()

    def _serving(self) -> bool:
        core = self.host.core
        leased = core.role is not Role.LEADER or self.host.clock.now() < core.lease_until
        return self.not_ready() is None and core.in_sync and leased

    def not_ready(self) -> str | None:
        """None when the role is known and served: a leader leads, a follower follows; otherwise why not."""
        core = self.host.core
        if core.role is Role.FAILED:
            return f"failed: {core.failure}; {remedy(core.state, self.host.config.me.replica.pod)}"
        if core.state is None:
            return "the partition's state is not known yet"
        if core.strange:
            return f"{core.strange}; {remedy(core.state, self.host.config.me.replica.pod)}"
        if core.role is Role.LEADER:
            return None if core.accepting else "the leader's epoch is not open yet"
        if core.refused is RefuseReason.OTHER_LEASE:
            lease = self.host.config.timing.lease
            return (
                f"refused by its leader: it promises for {lease:g} s, the leader counts on more; run the same release"
            )
        return None if core.connected else "not connected to the partition's leader"

    def collect(self) -> list[Metric]:
        """Prometheus metrics of this moment."""
        core, store = self.host.core, self.host.store
        progress = store.progress
        rows: list[tuple[str, str, float]] = [
            ("leader", "1 while this replica leads its partition", core.role is Role.LEADER),
            ("in_sync", "1 while the in-sync set names this replica", core.in_sync),
            ("in_sync_replicas", "size of the in-sync set", len(core.describe_in_sync())),
            ("epoch", "epoch led or followed", core.epoch),
            ("end_index", "last index of the log", core.end.index),
            ("durable_index", "last durable index of the log", core.durable),
            ("commit_index", "last committed index", core.commit),
            ("coordination_lost", "1 while coordination's data is lost or turned back", core.loss is not None),
            (
                "slow_disks",
                "in-sync replicas with far slower disks than another's, by the leader's measure",
                len(core.slow),
            ),
            ("sync_waiting_seconds", "how long the sync under way has taken so far; 0: none", self.host.sync_waiting),
            ("keys", "keys with a value", store.keys),
            ("log_bytes", "size of the log on disk", store.log_bytes),
            ("log_segments", "files of the log", store.segments),
            ("horizon", "index below which the log is compacted", store.horizon),
            ("compactions", "compactions since the start", progress.compactions),
            ("compaction_reclaimed_bytes", "bytes that compaction freed since the start", progress.reclaimed_bytes),
            ("compaction_waiting_segments", "segments that want a hint or compaction", progress.waiting),
            ("compaction_source_bytes", "size of what is being compacted", progress.source_bytes),
            ("compaction_read_bytes", "how far in that it has come", progress.read_bytes),
            ("verified_bytes", "bytes of the log verified at rest since the start", progress.verified_bytes),
        ]
        labels = ["pod", "partition"]
        values = [self.host.config.me.replica.pod, str(self.host.config.partition)]
        families: list[Metric] = []
        for name, text, value in rows:
            family = GaugeMetricFamily(f"kvcluster_node_{name}", text, labels=labels)
            family.add_metric(values, float(value))
            families.append(family)
        return families
