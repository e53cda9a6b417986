"""A replica loses its volume: it comes back as a stranger, and counts only when it has everything."""

from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from threading import Event

from kvcoord.contract import ReplicaId
from kvcoord.open import open_coordination
from tests.e2e.cluster import Cluster
from tests.e2e.experiment import WITHOUT_A_FOLLOWER, Experiment
from tests.e2e.kube import wait_until
from tests.support.workload import LoopThread

PARTITION = 0


@contextmanager
def watched(cluster: Cluster, partition: int) -> Iterator[list[tuple[ReplicaId, ...]]]:
    """Every in-sync set of a partition that ZooKeeper shows while inside."""
    url = cluster.coordination_url()
    seen: list[tuple[ReplicaId, ...]] = []
    begun = Event()

    async def watch() -> None:
        coordination = open_coordination(url)
        await coordination.start()
        try:
            async for state in coordination.watch_partition(partition):
                if state is not None:
                    seen.append(state.value.in_sync)
                    begun.set()
        finally:
            await coordination.close()

    watching = LoopThread.shared().submit(watch())
    try:
        assert begun.wait(30), f"nothing read from {url}"
        yield seen
    finally:
        watching.cancel()
        wait([watching])


def test_a_replica_whose_volume_is_deleted_is_rebuilt_before_it_counts(cluster: Cluster) -> None:
    pod = cluster.a_follower(PARTITION)
    claim = cluster.claim_of(pod)
    claimed = cluster.kube.get("persistentvolumeclaims", claim, cluster.namespace)["metadata"]["uid"]
    old = cluster.node_status(pod).incarnation
    leader = cluster.partition(PARTITION).leader
    with watched(cluster, PARTITION) as sets, Experiment(cluster, "volume lost") as experiment:
        experiment.strike()
        needed = cluster.node_status(leader).commit_index
        cluster.kube.kubectl("delete", "pvc", claim, "-n", cluster.namespace, "--wait=false")
        cluster.kube.kubectl("delete", "pod", pod, "-n", cluster.namespace, "--wait=false")

        def stranger() -> ReplicaId | None:
            members = [replica for replica in sets[-1] if replica.pod == pod]
            return members[0] if members and members[0].incarnation != old else None

        came_back = wait_until(f"{pod} in sync under another incarnation", stranger, 120, interval=0.01)
        # The kubelet may be slower to say where the pod is than the pod to be in sync.
        has = wait_until(f"{pod}'s word", lambda: cluster.node_status(pod), 30, interval=0.01).durable_index
        cluster.wait_whole()
        experiment.finish()
    assert has >= needed, f"{came_back} counted as in sync with {has}, of at least {needed} records"
    assert cluster.node_status(pod).incarnation == came_back.incarnation
    assert cluster.kube.get("persistentvolumeclaims", claim, cluster.namespace)["metadata"]["uid"] != claimed, (
        "the volume is a new one"
    )
    joined = next(i for i, replicas in enumerate(sets) if came_back in replicas)
    assert any(all(replica.pod != pod for replica in replicas) for replicas in sets[:joined]), "it was out in between"
    assert all(replica.incarnation != old for replicas in sets[joined:] for replica in replicas)
    assert experiment.gap(PARTITION) <= WITHOUT_A_FOLLOWER
    experiment.assert_unnoticed(*(p for p in experiment.partitions if p != PARTITION))
