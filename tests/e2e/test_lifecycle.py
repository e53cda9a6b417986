"""Two KVClusters in one namespace from birth to deletion: they don't meet, and each takes with it only what is its own."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from kvclient import AsyncClient
from kvcoord.contract import ClusterIdentity, PartitionState, Versioned
from kvcoord.open import open_coordination
from tests.e2e.cluster import KIND, Cluster
from tests.e2e.experiment import Experiment
from tests.e2e.kube import Kube, condition, restarts, wait_until
from tests.e2e.namespaces import KEEP, empty_namespace, remove_namespace
from tests.e2e.platforms import Platform
from tests.e2e.release import Release
from tests.support.workload import LoopThread, Plan

NAMESPACE = "kv-e2e-two"
ONE_PARTITION = Plan(tasks=6)  # as many tasks as on three
MADE = "statefulsets,deployments,services,poddisruptionbudgets,pods"


def small(name: str, image: str, retention: str, zookeeper: dict[str, Any] | None = None) -> dict[str, Any]:
    """The smallest KVCluster there is; with a ZooKeeper of its own unless `zookeeper` says otherwise."""
    own = {"replicas": 1, "resources": {"requests": {"cpu": "20m", "memory": "128Mi"}}}
    return {
        "apiVersion": "kvcluster.dev/v1alpha1",
        "kind": "KVCluster",
        "metadata": {"name": name},
        "spec": {
            "image": image,
            "partitions": 1,
            "replicas": 1,
            "storage": {"size": "1Gi", "retention": retention},
            "resources": {"requests": {"cpu": "20m", "memory": "96Mi"}},
            "zookeeper": own if zookeeper is None else zookeeper,
            "router": {"replicas": 1, "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}}},
        },
    }


def put(cluster: Cluster, key: bytes, value: bytes) -> None:
    async def run() -> None:
        async with await AsyncClient.connect(cluster.address(), mode="router", timeout=20) as client:
            await client.put(key, value)

    LoopThread.shared().run(run())


def get(cluster: Cluster, key: bytes) -> bytes | None:
    async def run() -> bytes | None:
        async with await AsyncClient.connect(cluster.address(), mode="router", timeout=20) as client:
            record = await client.get(key)
            return record.value if record else None

    return LoopThread.shared().run(run())


def members(cluster: Cluster) -> list[str]:
    """Pods that a router knows as members."""
    return [member.pod for member in cluster.topology().members]


def left_of(cluster: Cluster, kinds: str) -> list[str]:
    """Objects of a KVCluster that are still there."""
    selector = f"kvcluster.dev/cluster={cluster.name}"
    objects = cluster.kube.list(kinds, cluster.namespace, selector)
    return [f"{one['kind']}/{one['metadata']['name']}" for one in objects]


@pytest.fixture(scope="module")
def two(kube: Kube, platform: Platform, operator: Release, image: str) -> Iterator[tuple[Cluster, Cluster]]:
    """`deleted` takes its volumes with it, `retained` leaves them. The operator is restarted in the middle of it all."""
    empty_namespace(kube, NAMESPACE)
    pair = Cluster(kube, platform, NAMESPACE, "deleted"), Cluster(kube, platform, NAMESPACE, "retained")
    kube.apply(small("deleted", image, "Delete"), NAMESPACE)
    kube.apply(small("retained", image, "Retain"), NAMESPACE)
    operator.restart()
    for one in pair:
        one.wait_available(180)
    yield pair
    for one in pair:
        one.close()
    if not KEEP:
        remove_namespace(kube, NAMESPACE)


def test_two_clusters_in_one_namespace_do_not_meet(two: tuple[Cluster, Cluster]) -> None:
    deleted, retained = two
    assert deleted.topology().cluster_id != retained.topology().cluster_id
    put(deleted, b"whose", b"deleted's")
    put(retained, b"whose", b"retained's")
    assert (get(deleted, b"whose"), get(retained, b"whose")) == (b"deleted's", b"retained's")
    for one in two:
        # While a member's session is new its routers may not know it yet; they never know another's.
        assert wait_until("its member known", partial(members, one), 30) == [f"{one.name}-p0-0"]


def coordination_data(cluster: Cluster) -> tuple[ClusterIdentity | None, Versioned[PartitionState] | None]:
    """A cluster's identity and the state of its first partition, as its own ZooKeeper has them."""

    async def run() -> tuple[ClusterIdentity | None, Versioned[PartitionState] | None]:
        coordination = open_coordination(cluster.coordination_url())
        await coordination.start()
        try:
            return await coordination.read_identity(), await coordination.read_partition(0)
        finally:
            await coordination.close()

    return LoopThread.shared().run(run())


def test_lost_zookeeper_data_is_named_and_put_back_by_those_who_know_it(two: tuple[Cluster, Cluster]) -> None:
    """ZooKeeper's volume is lost while the one replica that knows what was in it can't say so."""
    deleted, _ = two
    member, node = f"{deleted.name}-zk-0", f"{deleted.name}-p0-0"
    before, restarted = deleted.node_status(node), restarts(deleted.pod(node))
    identity, state = coordination_data(deleted)
    assert identity is not None
    assert state is not None

    def reason() -> str:
        found = condition(deleted.resource(), "Degraded")
        return f"{found['reason']}: {found['message']}" if found else ""

    with Experiment(deleted, "zookeeper's volume lost", plan=ONE_PARTITION) as experiment:
        experiment.strike()
        deleted.signal(node, "STOP")
        try:
            deleted.kube.kubectl("delete", "pvc", deleted.claim_of(member), "-n", NAMESPACE, "--wait=false")
            deleted.kube.kubectl("delete", "pod", member, "-n", NAMESPACE, "--wait=false")
            wait_until("CoordinationDataLost", lambda: reason().startswith("CoordinationDataLost"), 120, interval=0.5)
            said = reason()
            print(f"\n{said}")
            assert "the state of partitions 0 is missing in ZooKeeper, and was there before" in said
            assert "kvrecover" in said
            assert coordination_data(deleted) == (None, None), "nobody else makes anything over data that exists"
        finally:
            deleted.signal(node, "CONT")
        wait_until("the state put back", lambda: all(coordination_data(deleted)), 60, interval=1.0)
        deleted.wait_whole()
        experiment.finish()
    identity_now, state_now = coordination_data(deleted)
    assert identity_now is not None
    assert state_now is not None
    assert identity_now.cluster_id == identity.cluster_id
    assert state_now.value.generation > state.value.generation
    assert state_now.value.epoch >= state.value.epoch
    wait_until("nothing wrong any more", lambda: reason().startswith("AsExpected"), 60)
    assert deleted.node_status(node).incarnation == before.incarnation
    assert restarts(deleted.pod(node)) == restarted, "losing ZooKeeper's data restarts nobody"


def test_deleting_one_removes_what_was_made_and_nothing_of_the_other(two: tuple[Cluster, Cluster]) -> None:
    deleted, retained = two
    put(retained, b"a neighbour", b"unharmed")
    others = left_of(retained, f"{MADE},persistentvolumeclaims")
    deleted.kube.kubectl("delete", KIND, deleted.name, "-n", NAMESPACE, "--timeout=90s")
    wait_until(
        "nothing left of it, volumes included", lambda: not left_of(deleted, f"{MADE},persistentvolumeclaims"), 90
    )
    assert left_of(retained, f"{MADE},persistentvolumeclaims") == others
    assert get(retained, b"a neighbour") == b"unharmed"


def test_retained_volumes_are_taken_up_again_with_their_data(two: tuple[Cluster, Cluster], image: str) -> None:
    """Clients write until it is gone, read every key when it is there again, and write on: one history of both lives."""
    _, retained = two
    node = f"{retained.name}-p0-0"
    identity, incarnation = retained.topology().cluster_id, retained.node_status(node).incarnation
    claims = left_of(retained, "persistentvolumeclaims")
    assert len(claims) == 2, f"one of the node and one of ZooKeeper: {claims}"
    with Experiment(retained, "deleted and made again", plan=ONE_PARTITION) as experiment:
        experiment.strike()
        retained.kube.kubectl("delete", KIND, retained.name, "-n", NAMESPACE, "--timeout=90s")
        wait_until("nothing left but volumes", lambda: not left_of(retained, MADE), 90)
        assert left_of(retained, "persistentvolumeclaims") == claims
        retained.close()
        retained.kube.apply(small("retained", image, "Retain"), NAMESPACE)
        retained.wait_available(120)
        experiment.reconnect()
        experiment.finish()
    assert retained.topology().cluster_id == identity
    assert retained.node_status(node).incarnation == incarnation
