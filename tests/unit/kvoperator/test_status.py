"""What is said of a cluster in each situation: conditions, rows, phase and Events."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kvoperator.planner import plan
from kvoperator.snapshot import (
    DeploymentView,
    StatefulSetView,
)
from kvoperator.spec import parse_spec
from tests.unit.kvoperator.pictures import (
    ID,
    NOW,
    UID,
    all_pods,
    coordination,
    healthy,
    member,
    pod,
    state,
    told,
    with_pods,
    with_status,
)


def said(plan_made: Any, kind: Any = "Degraded") -> Any:
    condition = told(plan_made.status, kind)
    return condition.status, condition.reason


def of_kind(plan_made: Any, kind: Any) -> Any:
    return [action for action in plan_made.actions if isinstance(action, kind)]


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


def with_trouble(name: str, trouble: str, **changes: Any) -> Any:
    """A healthy cluster but for what one member says of itself."""
    view = coordination(**changes)
    return healthy(coordination=replace(view, members={**view.members, name: member(name, trouble=trouble)}))


def test_a_damaged_replica_is_told_in_its_own_words_and_with_an_event() -> None:
    made = plan(with_trouble("c-p0-2", "ReplicaDamaged: bad byte at offset 7; it is rebuilt"))

    assert said(made) == ("True", "ReplicaDamaged")
    assert "c-p0-2: bad byte at offset 7" in told(made.status, "Degraded").message
    assert [(e.type, e.reason) for e in made.events] == [("Warning", "ReplicaDamaged")]


def test_what_a_member_that_is_gone_said_last_is_not_told() -> None:
    snapshot = with_trouble("c-p0-2", "DiskFull: no space")
    gone = replace(snapshot.coordination, connected=snapshot.coordination.connected - {"c-p0-2"})

    assert said(plan(snapshot)) == ("True", "DiskFull")
    assert said(plan(replace(snapshot, coordination=gone)))[1] != "DiskFull"


def test_a_word_that_this_operator_does_not_know_is_left_alone() -> None:
    assert said(plan(with_trouble("c-p0-2", "Melancholy: it rains"))) == ("False", "AsExpected")


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


def test_an_older_state_in_place_of_the_one_known_changes_no_row() -> None:
    """ZooKeeper's data was turned back: the nodes put the newer one back, and an operator that begins must know it."""
    newer = replace(state(0, leader=1, epoch=5), serial=7)
    status = plan(replace(healthy(), coordination=coordination({0: newer, 1: state(1)}))).status
    known = with_status(healthy(), partitions=status.partitions)

    assert plan(replace(known, coordination=coordination({0: state(0), 1: state(1)}))).status.row(0) == status.row(0)
    put_back = replace(newer, generation=2, serial=8)
    row = plan(replace(known, coordination=coordination({0: put_back, 1: state(1)}))).status.row(0)
    assert row is not None
    assert row.age == (2, 8)


def test_a_zookeeper_member_that_is_down_is_told() -> None:
    snapshot = healthy()
    sets = {**snapshot.statefulsets, "c-zk": StatefulSetView("c-zk", True, "", 3, 2)}
    made = plan(replace(snapshot, statefulsets=sets))

    assert said(made) == ("True", "ZooKeeperNotReady")
    assert said(made, "Available")[0] == "True"


def test_right_after_it_began_to_serve_the_last_member_and_router_are_still_on_their_way() -> None:
    snapshot = healthy(routers=DeploymentView(True, 2, 2, 1))
    snapshot = replace(
        snapshot, statefulsets={**snapshot.statefulsets, "c-zk": StatefulSetView("c-zk", True, "", 3, 2)}
    )
    now = NOW - timedelta(hours=1)

    assert said(plan(replace(snapshot, now=now + timedelta(seconds=5)))) == ("False", "AsExpected")
    assert said(plan(replace(snapshot, now=now + timedelta(seconds=30)))) == ("True", "ZooKeeperNotReady")


def test_an_outage_of_partitions_does_not_hide_that_of_zookeeper() -> None:
    down = with_pods(healthy(), pod("c-p1-0", ready=False))
    down = with_status(down, **dict(plan(down).status))
    made = plan(replace(down, coordination=None, now=NOW + timedelta(seconds=1)))

    assert "ZooKeeper can't be asked" in told(made.status, "Degraded").message


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
