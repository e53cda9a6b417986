"""A partition's leader is lost, in every way a leader can be: nothing acknowledged is lost, and writes go on."""

import time

from tests.e2e.cluster import Cluster
from tests.e2e.experiment import AFTER_DELETION, AFTER_KILL, WITHOUT_A_FOLLOWER, Experiment
from tests.e2e.kube import is_ready, restarts, wait_until
from tests.e2e.release import Release


def test_a_killed_leader_is_replaced_within_five_seconds(cluster: Cluster) -> None:
    before = cluster.partition(0)
    restarted = restarts(cluster.pod(before.leader))
    with Experiment(cluster, "leader killed") as experiment:
        experiment.strike()
        cluster.signal(before.leader, "KILL")
        cluster.wait_for_new_leader(0, before.epoch)
        wait_until("the killed container started again", lambda: restarts(cluster.pod(before.leader)) > restarted, 30)
        cluster.wait_whole()
        experiment.finish()
    assert experiment.gap(0) <= AFTER_KILL
    experiment.assert_unnoticed(1, 2)


def test_a_deleted_leader_hands_over_within_a_second(cluster: Cluster) -> None:
    before = cluster.partition(1)
    identity = cluster.pod(before.leader)["metadata"]["uid"]
    with Experiment(cluster, "leader deleted") as experiment:
        experiment.strike()
        cluster.kube.kubectl("delete", "pod", before.leader, "-n", cluster.namespace, "--wait=false")
        cluster.wait_for_new_leader(1, before.epoch)

        def replaced() -> bool:
            pod = cluster.pod(before.leader)
            return pod["metadata"]["uid"] != identity and is_ready(pod)

        wait_until("another pod in its place", replaced, 60)
        cluster.wait_whole()
        experiment.finish()
    assert experiment.gap(1) <= AFTER_DELETION
    experiment.assert_unnoticed(0, 2)


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
    experiment.assert_unnoticed(0, 1)


def test_failover_needs_no_operator(cluster: Cluster, operator: Release) -> None:
    before = cluster.partition(1)
    restarted = restarts(cluster.pod(before.leader))
    with Experiment(cluster, "leader killed, no operator") as experiment:
        gone = experiment.load.clock()
        operator.scale(0)
        try:
            experiment.flow(count=20)
            struck = experiment.strike()
            cluster.signal(before.leader, "KILL")
            cluster.wait_for_new_leader(1, before.epoch)
            wait_until(
                "the killed container started again", lambda: restarts(cluster.pod(before.leader)) > restarted, 30
            )
            cluster.wait_whole()
            assert not operator.pods()
        finally:
            operator.scale(1)
        experiment.finish()
    assert experiment.gap(1) <= AFTER_KILL
    experiment.assert_unnoticed(0, 2)
    experiment.assert_unnoticed(0, 1, 2, since=gone, until=struck)
