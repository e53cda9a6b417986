"""The histogram of syncs, as Prometheus reads it."""

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from kvcoord.contract import ReplicaId, RunId
from kvnode.status import SYNC_BUCKETS, SyncTimes


def test_it_reads_as_the_librarys_own_histogram() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    times = SyncTimes(ours, RunId(ReplicaId("p-0", "i"), "r"), 3)
    text = "seconds that a write of the log and its sync took"
    histogram = Histogram(
        "kvcluster_node_sync_seconds", text, ("pod", "partition"), registry=theirs, buckets=SYNC_BUCKETS
    ).labels("p-0", "3")
    for seconds in (0.0001, 0.0005, 0.00051, 0.03, 5.0, 7.0):
        times.observe(seconds)
        histogram.observe(seconds)
    said = [line for line in generate_latest(theirs).splitlines() if b"_created" not in line]
    assert generate_latest(ours).splitlines() == said
