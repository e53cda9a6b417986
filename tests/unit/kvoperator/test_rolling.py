from dataclasses import replace
from typing import Any

from kvoperator.actions import DeleteObject
from kvoperator.planner import plan
from kvoperator.snapshot import ObjectKey
from kvoperator.spec import parse_spec
from tests.unit.kvoperator.pictures import all_pods, coordination, healthy, pod, state, told, with_pods, without_pods


def old(*names: Any) -> Any:
    return [pod(name, revision="old") for name in names]


def deleted(snapshot: Any) -> Any:
    actions = [a for a in plan(snapshot).actions if isinstance(a, DeleteObject)]
    assert all(a.key.kind == "Pod" for a in actions)
    return [a.key.name for a in actions]


def test_followers_go_before_the_leader() -> None:
    assert deleted(with_pods(healthy(), *old("c-p0-0", "c-p0-1", "c-p0-2"))) == ["c-p0-1"]
    assert deleted(with_pods(healthy(), *old("c-p0-0", "c-p0-2"))) == ["c-p0-2"]
    assert deleted(with_pods(healthy(), *old("c-p0-0"))) == ["c-p0-0"]


def test_only_one_pod_goes_at_a_time() -> None:
    assert deleted(with_pods(healthy(), *old(*all_pods()))) == ["c-p0-1"]


def test_a_pod_is_deleted_by_its_uid_so_that_a_repeat_never_meets_its_successor() -> None:
    (action,) = [a for a in plan(with_pods(healthy(), *old("c-p0-1"))).actions if isinstance(a, DeleteObject)]

    assert action.uid == "uid-c-p0-1"


def test_nothing_goes_while_another_of_the_partition_is_out_of_sync() -> None:
    snapshot = healthy(coordination=coordination({0: state(0, in_sync=(0, 1)), 1: state(1)}))

    assert deleted(with_pods(snapshot, *old("c-p0-0", "c-p0-1"))) == []


def test_one_that_is_out_of_sync_itself_may_go() -> None:
    snapshot = healthy(coordination=coordination({0: state(0, in_sync=(0, 1)), 1: state(1)}))

    assert deleted(with_pods(snapshot, *old("c-p0-2"))) == ["c-p0-2"]


def test_nothing_goes_while_another_of_the_partition_is_not_ready() -> None:
    assert deleted(with_pods(healthy(), *old("c-p0-1"), pod("c-p0-2", ready=False))) == []


def test_nothing_goes_while_one_of_another_partition_that_was_replaced_does_not_serve_yet() -> None:
    """A new revision that can't start costs one follower, not one of each partition."""
    stuck = pod("c-p0-1", running=False, ready=False, waiting="ErrImagePull")
    catching_up = healthy(coordination=coordination({0: state(0, in_sync=(0, 2)), 1: state(1)}))

    assert deleted(with_pods(healthy(), *old("c-p0-0", "c-p0-2", *all_pods()[3:]), stuck)) == []
    assert deleted(with_pods(catching_up, *old("c-p1-1"))) == []
    assert deleted(without_pods(with_pods(healthy(), *old("c-p1-1")), "c-p0-1")) == []


def test_a_partition_that_can_not_be_rolled_now_does_not_hold_up_the_others() -> None:
    """Nobody leads it, and all its pods are of the older revision: nothing of the new one is in doubt."""
    snapshot = healthy(coordination=coordination({0: state(0, leader=None), 1: state(1)}))

    assert deleted(with_pods(snapshot, *old("c-p0-0", "c-p0-1", "c-p0-2", "c-p1-1"))) == ["c-p1-1"]


def test_nothing_goes_while_any_node_is_on_its_way_out() -> None:
    assert deleted(with_pods(healthy(), *old("c-p0-1"), pod("c-p1-2", deleting=True))) == []


def test_nothing_goes_while_another_of_the_partition_is_missing() -> None:
    assert deleted(without_pods(with_pods(healthy(), *old("c-p0-1")), "c-p0-2")) == []


def test_nothing_goes_while_another_has_lost_its_registration() -> None:
    snapshot = healthy(coordination=coordination(away=("c-p0-2",)))

    assert deleted(with_pods(snapshot, *old("c-p0-1"))) == []


def test_nothing_goes_while_nobody_leads() -> None:
    snapshot = healthy(coordination=coordination({0: state(0, leader=None), 1: state(1)}))

    assert deleted(with_pods(snapshot, *old("c-p0-1"))) == []


def test_nothing_goes_while_zookeeper_is_away() -> None:
    assert deleted(with_pods(healthy(coordination=None), *old("c-p0-1"))) == []


def test_nothing_goes_before_the_controller_has_seen_the_newest_spec() -> None:
    snapshot = with_pods(healthy(), *old("c-p0-1"))
    sets = {**snapshot.statefulsets, "c-p0": replace(snapshot.statefulsets["c-p0"], settled=False)}

    assert deleted(replace(snapshot, statefulsets=sets)) == []


def test_nothing_goes_in_the_round_that_applies_the_change() -> None:
    snapshot = with_pods(healthy(), *old("c-p0-1"))
    spec = parse_spec({"partitions": 2, "image": "kv:2"})

    assert deleted(replace(snapshot, cluster=replace(snapshot.cluster, spec=spec))) == []


def test_pods_that_never_ran_go_at_once_so_that_a_wrong_image_can_be_corrected() -> None:
    stuck = [
        pod(n, revision="old", running=False, ready=False, waiting="ImagePullBackOff") for n in ("c-p0-1", "c-p1-2")
    ]

    assert deleted(with_pods(healthy(), *stuck)) == ["c-p0-1", "c-p1-2"]


def test_pods_of_the_newest_revision_that_do_not_run_stay() -> None:
    stuck = pod("c-p0-1", running=False, ready=False, waiting="ImagePullBackOff")

    assert deleted(with_pods(healthy(), stuck)) == []


def test_a_roll_is_progress_and_its_replica_out_of_sync_no_problem() -> None:
    snapshot = healthy(coordination=coordination({0: state(0, in_sync=(0, 2)), 1: state(1)}))
    status = plan(with_pods(snapshot, *old("c-p0-0"))).status

    assert (told(status, "Progressing").status, told(status, "Progressing").reason) == ("True", "Rolling")
    assert told(status, "Degraded").status == "False"


def test_a_key_names_kind_and_object() -> None:
    assert ObjectKey("Pod", "a") < ObjectKey("Pod", "b") < ObjectKey("Service", "a")
