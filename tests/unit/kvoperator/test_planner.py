"""What the planner decides in each situation, but for births, rolls and ends, which have files of their own."""

from dataclasses import replace
from typing import Any

import pytest

from kvoperator.actions import AddFinalizer, Apply, GrowClaim, LabelPod, ReportDeath
from kvoperator.planner import plan
from kvoperator.snapshot import (
    ClaimView,
    Ended,
    ObjectKey,
    ObjectView,
)
from kvoperator.spec import parse_spec
from kvoperator.status import KVClusterStatus
from tests.unit.kvoperator.pictures import (
    FRESH,
    ID,
    cluster,
    coordination,
    healthy,
    pod,
    state,
    told,
    with_pods,
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
