"""A machine loses power, with all that is on it: leaders, followers, a router, the leader of ZooKeeper.

Beside the shared cluster, which has a replica of everything on each of three machines, stands a sparse one, with two
replicas of each partition: there is always a partition that had nothing on the dead machine. It has no ZooKeeper of its
own but uses the shared cluster's.
"""

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from kvcommon.numbers import ZOOKEEPER_PORT
from kvproto.v1 import cluster_pb2
from tests.e2e.cluster import KIND, Cluster
from tests.e2e.experiment import AFTER_KILL, WITHOUT_A_FOLLOWER, Experiment
from tests.e2e.kube import Kube, Object, wait_until
from tests.e2e.namespaces import KEEP, empty_namespace, remove_namespace
from tests.e2e.platforms import Platform
from tests.e2e.release import Release
from tests.e2e.test_lifecycle import MADE, get, left_of, put

NAMESPACE = "kv-e2e-sparse"
PARTITIONS = 3
HAND_OVERS = 2  # of each partition, at most


def thin(image: str, connect: str) -> dict[str, Any]:
    """Two replicas of each partition, one of which is enough, on an ensemble that is there."""
    return {
        "apiVersion": "kvcluster.dev/v1alpha1",
        "kind": "KVCluster",
        "metadata": {"name": "sparse"},
        "spec": {
            "image": image,
            "partitions": PARTITIONS,
            "replicas": 2,
            "minInSync": 1,
            "storage": {"size": "1Gi", "retention": "Delete"},
            "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
            "zookeeper": {"connect": connect},
            "router": {"replicas": 2, "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}}},
        },
    }


@pytest.fixture(scope="module")
def sparse(kube: Kube, platform: Platform, operator: Release, shared: Cluster, image: str) -> Iterator[Cluster]:
    """The sparse cluster, Available."""
    empty_namespace(kube, NAMESPACE)
    made = Cluster(kube, platform, NAMESPACE, "sparse")
    kube.apply(thin(image, shared.zookeeper_hosts()), NAMESPACE)
    made.wait_available(180)
    yield made
    made.close()
    if not KEEP:
        remove_namespace(kube, NAMESPACE)


@dataclass(frozen=True)
class Standing:
    """Where everything of a cluster is, and who leads."""

    partitions: Mapping[int, cluster_pb2.Partition]
    pods: Mapping[str, Object]

    @classmethod
    def of(cls, cluster: Cluster) -> "Standing":
        """As it is now."""
        states = {state.partition: state for state in cluster.partitions()}
        return cls(states, {pod["metadata"]["name"]: pod for pod in cluster.pods()})

    def machine_of(self, pod: str) -> str:
        """The node that a pod is on."""
        return str(self.pods[pod]["spec"]["nodeName"])

    def led_on(self, machine: str) -> list[int]:
        """Partitions whose leader is there."""
        return [number for number, state in self.partitions.items() if self.machine_of(state.leader) == machine]

    def followed_on(self, machine: str) -> list[int]:
        """Partitions that have a follower there."""
        led = self.led_on(machine)
        return [
            number
            for number, state in self.partitions.items()
            if number not in led and machine in map(self.machine_of, state.replicas)
        ]

    def apart_from(self, machine: str) -> list[int]:
        """Partitions that have nothing there."""
        there = {*self.led_on(machine), *self.followed_on(machine)}
        return [number for number in self.partitions if number not in there]


def living(cluster: Cluster, machine: str, pods: list[Object]) -> list[str]:
    """Addresses of pods on other machines: the bounds are for clients of a living router, or straight to nodes."""
    return [cluster.pod_address(pod) for pod in pods if pod["spec"]["nodeName"] != machine]


def under_load(cluster: Cluster, machine: str, name: str) -> Experiment:
    """An experiment whose clients know no address on the machine."""
    return Experiment(
        cluster,
        name,
        routers=living(cluster, machine, cluster.router_pods()),
        nodes=living(cluster, machine, cluster.node_pods()),
    )


def machine_of_zookeepers_leader(cluster: Cluster) -> str:
    """Where the member is that leads the ensemble."""
    for pod in cluster.zookeeper_pods():
        with socket.create_connection((pod["status"]["podIP"], ZOOKEEPER_PORT), timeout=5) as connection:
            connection.sendall(b"srvr")
            said = b"".join(iter(lambda: connection.recv(4096), b""))
        if b"Mode: leader" in said:
            return str(pod["spec"]["nodeName"])
    raise AssertionError("no member leads the ensemble")


def a_machine(cluster: Cluster, sparse: Cluster) -> str:
    """One to switch off: with a leader of `cluster`, and without anything of some partition of `sparse`.

    If it can be, ZooKeeper's leader is there too. If `cluster` leads nowhere where it should, leaders hand over.
    """
    machines = {pod["spec"]["nodeName"] for pod in cluster.node_pods()}
    thin_there = sorted(machine for machine in machines if Standing.of(sparse).apart_from(machine))

    def leading() -> list[str]:
        return [machine for machine in thin_there if Standing.of(cluster).led_on(machine)]

    led = leading()
    for number in [*range(PARTITIONS)] * HAND_OVERS:  # who is next in line may be anywhere
        if led:
            break
        before = cluster.partition(number)
        cluster.kube.kubectl("delete", "pod", before.leader, "-n", cluster.namespace, "--wait=false")
        cluster.wait_for_new_leader(number, before.epoch)
        cluster.wait_whole()
        led = leading()
    assert led, f"no leader of {cluster.name} on any of {thin_there}"
    zookeeper = machine_of_zookeepers_leader(cluster)
    machine = zookeeper if zookeeper in led else led[0]
    print(f"\n{machine} will lose power" + (", and with it ZooKeeper's leader" if machine == zookeeper else ""))
    return machine


def test_a_cluster_on_somebody_elses_zookeeper_makes_none_of_its_own(sparse: Cluster, cluster: Cluster) -> None:
    assert not sparse.zookeeper_pods()
    assert sparse.topology().cluster_id != cluster.topology().cluster_id
    put(sparse, b"whose", b"sparse's")
    put(cluster, b"whose", b"shared's")
    assert (get(sparse, b"whose"), get(cluster, b"whose")) == (b"sparse's", b"shared's")


def test_a_machine_that_loses_power_takes_nothing_with_it(
    cluster: Cluster, sparse: Cluster, platform: Platform
) -> None:
    sparse.wait_whole()
    machine = a_machine(cluster, sparse)
    standings = {each.name: Standing.of(each) for each in (cluster, sparse)}
    with (
        under_load(cluster, machine, "power-off") as first,
        under_load(sparse, machine, "power-off, sparse") as second,
    ):
        experiments = (first, second)
        for experiment in experiments:
            experiment.strike()
        platform.kill_node(machine)
        try:
            for experiment in experiments:
                before = standings[experiment.cluster.name]
                for number in before.led_on(machine):
                    epoch = before.partitions[number].epoch
                    experiment.cluster.wait_for_new_leader(number, epoch, experiment.routers[0])
            for experiment in experiments:
                experiment.flow()
            off = first.load.clock()
        finally:
            platform.start_node(machine)
        for experiment in experiments:
            experiment.cluster.wait_whole(180)
        for experiment in experiments:
            experiment.finish()
    for experiment in experiments:
        before = standings[experiment.cluster.name]
        led, followed, apart = before.led_on(machine), before.followed_on(machine), before.apart_from(machine)
        print(f"{experiment.name}: led {led}, followed {followed}, nothing of {apart} on {machine}")
        for number in led:
            assert experiment.gap(number, until=off) <= AFTER_KILL
        for number in followed:
            assert experiment.gap(number, until=off) <= WITHOUT_A_FOLLOWER
        experiment.assert_unnoticed(*apart, until=off)


def test_deleting_a_cluster_leaves_the_zookeeper_that_was_not_its_own(sparse: Cluster, cluster: Cluster) -> None:
    epochs = [state.epoch for state in cluster.partitions()]
    sparse.kube.kubectl("delete", KIND, sparse.name, "-n", NAMESPACE, "--timeout=90s")
    wait_until(
        "nothing left of it, volumes included", lambda: not left_of(sparse, f"{MADE},persistentvolumeclaims"), 90
    )
    assert len(cluster.zookeeper_pods()) == 3
    assert [state.epoch for state in cluster.partitions()] == epochs
