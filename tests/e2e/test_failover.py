"""A partition's leader is lost, in every way a leader can be: nothing acknowledged is lost, and writes go on."""

import time

from tests.e2e.cluster import Cluster
from tests.e2e.experiment import NOTICED, Experiment
from tests.e2e.kube import is_ready, restarts, wait_until
from tests.e2e.platforms import Platform
from tests.e2e.release import Release

AFTER_KILL = 5.0  # seconds to the next acknowledged write
AFTER_DELETION = 1.0
WITHOUT_A_FOLLOWER = 2.5


def wait_for_new_leader(cluster: Cluster, partition: int, old_epoch: int, via: str = "") -> str:
    """The leader of a later epoch."""

    def probe() -> str | None:
        state = cluster.partition(partition, via)
        return state.leader if state.epoch > old_epoch and state.leader else None

    return wait_until(f"p{partition} in an epoch after {old_epoch}", probe, 30)


def test_a_killed_leader_is_replaced_within_five_seconds(cluster: Cluster) -> None:
    before = cluster.partition(0)
    restarted = restarts(cluster.pod(before.leader))
    with Experiment(cluster, "leader killed") as experiment:
        experiment.strike()
        cluster.signal(before.leader, "KILL")
        wait_for_new_leader(cluster, 0, before.epoch)
        wait_until("the killed container started again", lambda: restarts(cluster.pod(before.leader)) > restarted, 30)
        cluster.wait_whole()
        experiment.finish()
    assert experiment.gap(0) <= AFTER_KILL


def test_a_deleted_leader_hands_over_within_a_second(cluster: Cluster) -> None:
    before = cluster.partition(1)
    identity = cluster.pod(before.leader)["metadata"]["uid"]
    with Experiment(cluster, "leader deleted") as experiment:
        experiment.strike()
        cluster.kube.kubectl("delete", "pod", before.leader, "-n", cluster.namespace, "--wait=false")
        wait_for_new_leader(cluster, 1, before.epoch)

        def replaced() -> bool:
            pod = cluster.pod(before.leader)
            return pod["metadata"]["uid"] != identity and is_ready(pod)

        wait_until("another pod in its place", replaced, 60)
        cluster.wait_whole()
        experiment.finish()
    assert experiment.gap(1) <= AFTER_DELETION


def test_a_frozen_follower_pauses_its_partition_only_until_it_is_out_of_the_set(cluster: Cluster) -> None:
    before = cluster.partition(2)
    follower = cluster.a_follower(2)
    restarted = restarts(cluster.pod(follower))
    with Experiment(cluster, "follower frozen") as experiment:
        frozen = experiment.strike()
        cluster.signal(follower, "STOP")
        try:
            wait_until(f"{follower} out of the in-sync set", lambda: follower not in cluster.partition(2).in_sync, 10)
            time.sleep(max(0.0, frozen + 10.0 - experiment.load.clock()))  # the fault is to last ten seconds
        finally:
            cluster.signal(follower, "CONT")
        wait_until(f"{follower} in sync again", lambda: follower in cluster.partition(2).in_sync, 60)
        experiment.finish()
    assert cluster.partition(2).leader == before.leader, "the leader was not to change"
    assert restarts(cluster.pod(follower)) == restarted, "liveness has to bear with ten seconds"
    assert experiment.gap(2) <= WITHOUT_A_FOLLOWER
    assert max(experiment.gap(0), experiment.gap(1)) <= NOTICED


def test_failover_needs_no_operator(cluster: Cluster, operator: Release) -> None:
    before = cluster.partition(1)
    restarted = restarts(cluster.pod(before.leader))
    with Experiment(cluster, "leader killed, no operator") as experiment:
        operator.scale(0)
        try:
            experiment.flow(count=20)
            experiment.strike()
            cluster.signal(before.leader, "KILL")
            wait_for_new_leader(cluster, 1, before.epoch)
            wait_until(
                "the killed container started again", lambda: restarts(cluster.pod(before.leader)) > restarted, 30
            )
            cluster.wait_whole()
            assert not operator.pods()
        finally:
            operator.scale(1)
        experiment.finish()
    assert experiment.gap(1) <= AFTER_KILL


def test_a_machine_that_loses_power_takes_nothing_with_it(cluster: Cluster, platform: Platform) -> None:
    before = {state.partition: state for state in cluster.partitions()}
    places = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in cluster.pods()}
    machine = places[before[0].leader]
    led = [number for number, state in before.items() if places[state.leader] == machine]
    followed = [n for n, s in before.items() if n not in led and any(places[pod] == machine for pod in s.replicas)]
    # Clients that were connected to a router on the dead machine are not what the bound is about.
    routers = [cluster.pod_address(pod) for pod in cluster.router_pods() if pod["spec"]["nodeName"] != machine]
    nodes = [cluster.pod_address(pod) for pod in cluster.node_pods() if pod["spec"]["nodeName"] != machine]
    with Experiment(cluster, "power-off", routers=routers, nodes=nodes) as experiment:
        experiment.strike()
        platform.kill_node(machine)
        try:
            for number in led:
                wait_for_new_leader(cluster, number, before[number].epoch, routers[0])
            experiment.flow()
            off = experiment.load.clock()
        finally:
            platform.start_node(machine)
        cluster.wait_whole(180)
        experiment.finish()
    print(f"power-off: {machine} led {led} and followed in {followed}")
    for number in led:
        assert experiment.gap(number, until=off) <= AFTER_KILL
    for number in followed:
        assert experiment.gap(number, until=off) <= WITHOUT_A_FOLLOWER
    for number in set(before) - set(led) - set(followed):
        assert experiment.gap(number, until=off) <= NOTICED
