"""What the planner decides in each situation, but for births, rolls and ends, which have files of their own."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from kvoperator.actions import AddFinalizer, Apply, GrowClaim, LabelPod, ReportDeath
from kvoperator.planner import plan
from kvoperator.snapshot import (
    ClaimView,
    DeploymentView,
    Ended,
    ObjectKey,
    ObjectView,
    StatefulSetView,
)
from kvoperator.spec import parse_spec
from kvoperator.status import KVClusterStatus

from tests.unit.kvoperator.pictures import (
    FRESH,
    ID,
    NOW,
    UID,
    all_pods,
    cluster,
    coordination,
    healthy,
    pod,
    state,
    told,
    with_pods,
    with_status,
    without_pods,
)


def said(plan_made: Any, kind: Any = "Degraded") -> Any:
    condition = told(plan_made.status, kind)
    return condition.status, condition.reason


def of_kind(plan_made: Any, kind: Any) -> Any:
    return [action for action in plan_made.actions if isinstance(action, kind)]


def claim(name: Any, **changes: Any) -> Any:
    made = ClaimView(name=name, uid=f"uid-{name}", cluster="c", cluster_id=ID, component="node", requested="10Gi")
    return replace(made, **changes)


def test_a_healthy_cluster_is_left_alone() -> None:
    made = plan(healthy())

    assert made.actions == ()
    assert made.events == ()
    assert made.status.phase == "Ready"
    assert [said(made, k) for k in ("Available", "Progressing", "Degraded")] == [
        ("True", "Serving"),
        ("False", "Settled"),
        ("False", "AsExpected"),
    ]


def test_planning_twice_decides_the_same() -> None:
    snapshot = healthy(applied={})

    assert plan(snapshot) == plan(snapshot)


def test_an_operator_that_remembers_nothing_applies_everything_once_more_and_reports_the_same_status() -> None:
    snapshot = healthy(applied={})
    made = plan(snapshot)

    assert len(of_kind(made, Apply)) == len(snapshot.objects) == len(made.actions)
    assert made.status == snapshot.cluster.status
    assert made.events == ()


def test_the_finalizer_comes_before_anything_is_made() -> None:
    made = plan(healthy(cluster=cluster(finalizers=()), objects={}))

    assert made.actions == (AddFinalizer(),)


def test_the_cluster_id_is_written_down_before_anything_bears_it() -> None:
    made = plan(healthy(cluster=cluster(status=KVClusterStatus()), objects={}, coordination=None))

    assert made.actions == ()
    assert made.status.clusterId == FRESH
    assert made.again


def test_kept_volumes_give_a_new_kvcluster_its_id() -> None:
    claims = {"data-c-p0-0": claim("data-c-p0-0")}
    made = plan(healthy(cluster=cluster(status=KVClusterStatus()), claims=claims))

    assert made.status.clusterId == ID


def test_volumes_of_other_clusters_of_the_namespace_give_it_none() -> None:
    claims = {"data-d-p0-0": claim("data-d-p0-0", cluster="d")}
    made = plan(healthy(cluster=cluster(status=KVClusterStatus()), claims=claims))

    assert made.status.clusterId == FRESH


def test_kept_volumes_of_two_clusters_start_nothing() -> None:
    claims = {"data-c-p0-0": claim("data-c-p0-0"), "data-c-p0-1": claim("data-c-p0-1", cluster_id="other")}
    made = plan(healthy(cluster=cluster(status=KVClusterStatus()), claims=claims, objects={}))

    assert said(made) == ("True", "ForeignVolumes")
    assert made.actions == ()
    assert made.status.clusterId == ""


def test_a_kept_volume_of_another_id_stops_everything() -> None:
    claims = {"data-c-p1-2": claim("data-c-p1-2", cluster_id="other")}
    made = plan(healthy(claims=claims, applied={}))

    assert said(made) == ("True", "ForeignVolumes")
    assert made.actions == ()


def test_a_spec_that_can_not_be_understood_changes_nothing() -> None:
    made = plan(healthy(cluster=cluster(spec=None, spec_error="spec.replicas is 9: too many"), applied={}))

    assert said(made) == ("True", "InvalidSpec")
    assert "spec.replicas is 9" in told(made.status, "Degraded").message
    assert made.actions == ()


def test_a_changed_spec_applies_what_it_changes_and_no_more() -> None:
    spec = parse_spec({"partitions": 2, "router": {"replicas": 5}})
    snapshot = healthy()
    made = plan(replace(snapshot, cluster=replace(snapshot.cluster, spec=spec)))

    assert [a.key for a in of_kind(made, Apply)] == [ObjectKey("Deployment", "c-router")]


def test_what_someone_else_changed_is_applied_again() -> None:
    snapshot = healthy()
    key = ObjectKey("StatefulSet", "c-p1")
    changed = replace(snapshot, objects={**snapshot.objects, key: replace(snapshot.objects[key], mark="2")})

    assert [a.key for a in of_kind(plan(changed), Apply)] == [key]


def test_what_someone_deleted_is_made_again() -> None:
    snapshot = healthy()
    key = ObjectKey("Service", "c")
    gone = replace(snapshot, objects={k: v for k, v in snapshot.objects.items() if k != key})

    (action,) = of_kind(plan(gone), Apply)
    assert (action.key, action.uid) == (key, None)


def test_an_object_on_its_way_out_is_waited_for() -> None:
    snapshot = healthy(applied={})
    key = ObjectKey("StatefulSet", "c-zk")
    going = replace(snapshot, objects={**snapshot.objects, key: replace(snapshot.objects[key], deleting=True)})

    assert key not in [a.key for a in of_kind(plan(going), Apply)]


TAKEN = ObjectKey("Service", "c")


def test_a_name_that_is_taken_is_never_touched() -> None:
    snapshot = healthy(applied={})
    other = ObjectView(TAKEN, "uid-other", "", False, "7")
    made = plan(replace(snapshot, objects={**snapshot.objects, TAKEN: other}))

    assert said(made) == ("True", "NameTaken")
    assert "Service c" in told(made.status, "Degraded").message
    assert TAKEN not in [a.key for a in of_kind(made, Apply)]


def test_another_owners_object_is_not_ours_whatever_its_labels_say() -> None:
    snapshot = healthy(applied={})
    other = replace(snapshot.objects[TAKEN], owner_uid="uid-of-another-kvcluster")
    made = plan(replace(snapshot, objects={**snapshot.objects, TAKEN: other}))

    assert said(made) == ("True", "NameTaken")


def test_before_its_birth_a_cluster_whose_name_is_taken_makes_nothing() -> None:
    other = ObjectView(TAKEN, "uid-other", "", False, "7")
    made = plan(
        healthy(cluster=cluster(status=KVClusterStatus(clusterId=ID)), objects={TAKEN: other}, coordination=None)
    )

    assert said(made) == ("True", "NameTaken")
    assert made.actions == ()


def test_a_strangers_volume_claim_is_a_name_taken() -> None:
    made = plan(healthy(claims={"data-c-p0-0": claim("data-c-p0-0", cluster="", cluster_id="")}))

    assert said(made) == ("True", "NameTaken")


def test_a_larger_volume_is_asked_for_where_it_is_smaller() -> None:
    claims = {"data-c-p0-0": claim("data-c-p0-0"), "data-c-p0-1": claim("data-c-p0-1", requested="20Gi")}
    spec = parse_spec({"partitions": 2, "storage": {"size": "20Gi"}})
    snapshot = healthy(claims=claims)
    made = plan(replace(snapshot, cluster=replace(snapshot.cluster, spec=spec)))

    assert of_kind(made, GrowClaim) == [GrowClaim("data-c-p0-0", "uid-data-c-p0-0", "20Gi")]


def test_a_statefulsets_claim_templates_are_left_as_they_are() -> None:
    template = {"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}
    snapshot = healthy(applied={})
    sets = {**snapshot.statefulsets, "c-p0": replace(snapshot.statefulsets["c-p0"], claim_templates=(template,))}
    applied = {
        a.key.name: a.manifest
        for a in of_kind(plan(replace(snapshot, statefulsets=sets)), Apply)
        if a.key.kind == "StatefulSet"
    }

    assert applied["c-p0"]["spec"]["volumeClaimTemplates"] == [template]


# Roles and deaths


def test_the_leaders_pod_is_labelled_before_the_old_leaders() -> None:
    snapshot = replace(healthy(), coordination=coordination({0: state(0, leader=2), 1: state(1)}))

    assert of_kind(plan(snapshot), LabelPod) == [
        LabelPod("c-p0-2", "uid-c-p0-2", "leader"),
        LabelPod("c-p0-0", "uid-c-p0-0", "follower"),
    ]


def test_labels_stay_while_coordination_is_away() -> None:
    snapshot = with_pods(healthy(coordination=None), pod("c-p0-0", role=""))

    assert of_kind(plan(snapshot), LabelPod) == []


def test_the_word_of_death_names_run_container_and_epoch_and_comes_first() -> None:
    dead = pod("c-p0-0", ended=(Ended("run-c-p0-0", "containerd://1"),), running=False, ready=False)
    made = plan(with_pods(healthy(applied={}), dead))

    assert isinstance(made.actions[0], ReportDeath)
    death = made.actions[0].death
    assert (death.pod, death.run, death.container_id, death.epoch) == ("c-p0-0", "run-c-p0-0", "containerd://1", 4)


def test_a_followers_death_is_told_too_so_that_its_leader_goes_on_without_it() -> None:
    dead = pod("c-p0-2", ended=(Ended("run-c-p0-2", "containerd://2"),), running=False, ready=False)

    (action,) = of_kind(plan(with_pods(healthy(), dead)), ReportDeath)
    assert (action.death.pod, action.death.run) == ("c-p0-2", "run-c-p0-2")


@pytest.mark.parametrize(
    ("hurt", "why"),
    [
        (lambda s: without_pods(s, "c-p0-0"), "a pod that is gone"),
        (lambda s: with_pods(s, pod("c-p0-0", deleting=True, ready=False)), "a pod being deleted"),
        (lambda s: with_pods(s, pod("c-p0-0", ready=False, running=False)), "a pod that does not run"),
        (lambda s: with_pods(s, pod("c-p0-0", ended=(Ended("run-before", "x"),))), "an end of an older run"),
        (
            lambda s: replace(
                with_pods(s, pod("c-p0-0", ended=(Ended("run-c-p0-0", "x"),))), reported={"c-p0-0": "run-c-p0-0"}
            ),
            "an end that was reported",
        ),
    ],
)
def test_nothing_else_is_death(hurt: Any, why: Any) -> None:
    assert of_kind(plan(hurt(healthy())), ReportDeath) == [], why


# Status


def test_a_leader_that_is_not_ready_makes_its_partition_unserved() -> None:
    made = plan(with_pods(healthy(), pod("c-p1-0", ready=False)))

    assert said(made, "Available") == ("False", "PartitionsNotServed")
    assert said(made) == ("True", "PartitionWithoutLeader")
    assert made.status.phase == "Unavailable"
    assert made.status.readyPartitions == "1/2"
    assert "Unavailable" in [e.reason for e in made.events]


def test_a_partition_below_min_in_sync_says_that_it_refuses_writes() -> None:
    states = {0: state(0, in_sync=(0,)), 1: state(1)}
    made = plan(replace(healthy(), coordination=coordination(states)))

    assert said(made) == ("True", "BelowMinInSync")
    assert "partition 0 refuses writes: 1 of 2" in told(made.status, "Degraded").message
    assert said(made, "Available")[0] == "True"


def test_a_replica_out_of_sync_is_named_and_told_once() -> None:
    states = {0: state(0, in_sync=(0, 2)), 1: state(1)}
    snapshot = replace(healthy(), coordination=coordination(states))
    made = plan(snapshot)

    assert said(made) == ("True", "ReplicaOutOfSync")
    assert "c-p0-1" in told(made.status, "Degraded").message
    assert [e.reason for e in made.events] == ["ReplicaOutOfSync"]
    again = plan(replace(snapshot, cluster=replace(snapshot.cluster, status=made.status)))
    assert again.events == ()


def test_a_new_leader_is_an_event_with_both_names() -> None:
    states = {0: state(0, leader=1, epoch=5), 1: state(1)}
    made = plan(replace(healthy(), coordination=coordination(states)))

    (event,) = made.events
    assert (event.reason, event.type) == ("LeaderChanged", "Normal")
    assert "c-p0-1 leads, epoch 5, before c-p0-0" in event.message


def test_with_zookeeper_away_the_rows_stay_and_what_serves_is_available() -> None:
    snapshot = healthy()
    made = plan(replace(snapshot, coordination=None, coordination_error="no answer within 3 s"))

    assert said(made) == ("True", "ZooKeeperUnavailable")
    assert said(made, "Available")[0] == "True"
    assert made.status.partitions == snapshot.cluster.status.partitions
    assert made.actions == ()


def test_a_zookeeper_member_that_is_down_is_told() -> None:
    snapshot = healthy()
    sets = {**snapshot.statefulsets, "c-zk": StatefulSetView("c-zk", True, "", 3, 2)}
    made = plan(replace(snapshot, statefulsets=sets))

    assert said(made) == ("True", "ZooKeeperNotReady")
    assert said(made, "Available")[0] == "True"


def test_without_any_router_it_is_not_available_but_nodes_are_said_to_serve() -> None:
    made = plan(healthy(routers=DeploymentView(True, 2, 2, 0)))

    assert said(made, "Available") == ("False", "NoRouterReady")


def test_a_cluster_that_wants_no_router_needs_none() -> None:
    spec = parse_spec({"partitions": 2, "router": {"replicas": 0}})
    snapshot = healthy(routers=DeploymentView(True, 0, 0, 0))
    made = plan(replace(snapshot, cluster=replace(snapshot.cluster, spec=spec)))

    assert said(made, "Available") == ("True", "Serving")


PULL = {
    "waiting": "ImagePullBackOff",
    "waiting_message": "not found",
    "running": False,
    "ready": False,
    "image": "no/such:1",
}


@pytest.mark.parametrize(
    ("changes", "reason", "text"),
    [
        (PULL, "ImageCannotBePulled", "image no/such:1 can't be pulled"),
        ({"waiting": "CrashLoopBackOff", "exit_code": 2, "restarts": 3, "ready": False}, "PodCrashing", "exit code 2"),
        (
            {"unschedulable": "0/3 nodes are available", "unschedulable_since": NOW - timedelta(seconds=30)},
            "PodUnschedulable",
            "0/3 nodes are available",
        ),
        ({"waiting": "CreateContainerConfigError", "waiting_message": "no secret"}, "PodCannotStart", "no secret"),
    ],
)
def test_a_pod_that_can_not_start_is_told_by_name_and_cause(changes: Any, reason: Any, text: Any) -> None:
    made = plan(with_pods(healthy(), pod("c-p1-2", **changes)))

    assert said(made) == ("True", reason)
    assert "c-p1-2" in told(made.status, "Degraded").message
    assert text in told(made.status, "Degraded").message


def test_a_pod_whose_volume_is_just_being_made_is_no_problem() -> None:
    fresh = pod("c-p1-2", unschedulable="waiting for first consumer", unschedulable_since=NOW - timedelta(seconds=1))

    assert said(plan(with_pods(healthy(), fresh))) == ("False", "AsExpected")


def test_what_could_not_be_done_is_told() -> None:
    made = plan(healthy(failures=("PATCH /x: forbidden (403)",)))

    assert said(made) == ("True", "ApplyFailed")
    assert "forbidden" in told(made.status, "Degraded").message


def test_all_that_is_wrong_is_in_the_message_and_the_gravest_is_the_reason() -> None:
    states = {0: state(0, in_sync=(0,)), 1: state(1)}
    made = plan(with_pods(healthy(coordination=coordination(states)), pod("c-p1-2", **PULL)))

    assert said(made) == ("True", "ImageCannotBePulled")
    assert "refuses writes" in told(made.status, "Degraded").message


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    snapshot = healthy()
    before = told(snapshot.cluster.status, "Available").lastTransitionTime
    later = replace(snapshot, now=NOW + timedelta(hours=1))

    assert told(plan(later).status, "Available").lastTransitionTime == before
    hurt = with_pods(later, pod("c-p0-0", ready=False))
    assert told(plan(hurt).status, "Available").lastTransitionTime == "2026-11-21T09:00:00Z"


def test_what_stays_wrong_is_told_once() -> None:
    snapshot = with_pods(healthy(), pod("c-p1-2", **PULL))
    made = plan(snapshot)
    again = plan(replace(snapshot, cluster=replace(snapshot.cluster, status=made.status)))

    assert [e.reason for e in made.events] == ["ImageCannotBePulled"]
    assert again.events == ()


def test_recovery_is_an_event() -> None:
    broken = plan(with_pods(healthy(), pod("c-p1-0", ready=False))).status
    made = plan(with_status(healthy(), **dict(broken)))

    assert {e.reason for e in made.events} == {"Recovered", "Available"}


def test_the_status_answers_this_generation() -> None:
    snapshot = healthy()
    made = plan(replace(snapshot, cluster=replace(snapshot.cluster, generation=9)))

    assert made.status.observedGeneration == 9
    assert {c.observedGeneration for c in made.status.conditions} == {9}


def test_the_row_of_a_partition_has_what_people_ask_for() -> None:
    row = plan(healthy()).status.row(1)

    assert row is not None
    assert (row.leader, row.epoch, row.inSync, row.replicas, row.ready) == ("c-p1-0", 4, list(all_pods()[3:]), 3, 3)


def test_status_keeps_id_and_birth() -> None:
    made = plan(healthy())

    assert (made.status.clusterId, made.status.born) == (ID, True)
    assert made.status.routerSelector == "app.kubernetes.io/component=router,kvcluster.dev/cluster=c"
    assert UID
