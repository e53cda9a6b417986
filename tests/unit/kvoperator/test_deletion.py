from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kvoperator.actions import DeleteObject, RemoveFinalizer
from kvoperator.planner import plan
from kvoperator.snapshot import ClaimView, ObjectKey, PodView
from kvoperator.spec import parse_spec
from tests.unit.kvoperator.pictures import ID, NOW, healthy, told


def ending(*, since: Any = 1.0, retention: Any = "Retain", **changes: Any) -> Any:
    snapshot = healthy()
    spec = parse_spec({"partitions": 2, "storage": {"retention": retention}})
    cluster = replace(snapshot.cluster, spec=spec, deleting_since=NOW - timedelta(seconds=since))
    return replace(snapshot, cluster=cluster, **changes)


def claim(name: Any, **changes: Any) -> Any:
    return replace(ClaimView(name, f"uid-{name}", "c", ID, "node", "1Gi"), **changes)


def deleted(snapshot: Any) -> Any:
    return {a.key for a in plan(snapshot).actions if isinstance(a, DeleteObject)}


def lets_go(snapshot: Any) -> Any:
    return RemoveFinalizer() in plan(snapshot).actions


ZOOKEEPER = {
    ObjectKey("StatefulSet", "c-zk"),
    ObjectKey("Service", "c-zk"),
    ObjectKey("Service", "c-zk-peers"),
    ObjectKey("PodDisruptionBudget", "c-zk"),
}


def test_nodes_and_routers_go_first_while_zookeeper_stays() -> None:
    snapshot = ending()

    assert deleted(snapshot) == set(snapshot.objects) - ZOOKEEPER
    assert not lets_go(snapshot)


def test_zookeeper_stays_until_the_last_node_has_ended() -> None:
    snapshot = ending()
    left = {k: v for k, v in snapshot.objects.items() if k in ZOOKEEPER}

    assert deleted(replace(snapshot, objects=left)) == set()
    assert deleted(replace(snapshot, objects=left, pods={})) == ZOOKEEPER


def test_the_kvcluster_stays_until_the_last_zookeeper_pod_has_ended() -> None:
    zk = {"c-zk-0": PodView("c-zk-0", "u", "zookeeper", deleting=True)}

    assert not lets_go(ending(objects={}, pods=zk))
    assert lets_go(ending(objects={}, pods={}))


def test_pods_of_a_lost_machine_do_not_keep_it_for_ever() -> None:
    assert lets_go(ending(since=61))


@pytest.mark.parametrize(("retention", "goes"), [("Retain", False), ("Delete", True)])
def test_volumes_follow_the_policy(retention: Any, goes: Any) -> None:
    snapshot = ending(objects={}, pods={}, retention=retention, claims={"data-c-p0-0": claim("data-c-p0-0")})

    assert (ObjectKey("PersistentVolumeClaim", "data-c-p0-0") in deleted(snapshot)) is goes


def test_volumes_of_others_stay() -> None:
    claims = {
        "data-d-p0-0": claim("data-d-p0-0", cluster="d"),
        "data-c-p0-1": claim("data-c-p0-1", cluster_id="another"),
    }

    assert deleted(ending(objects={}, pods={}, retention="Delete", claims=claims)) == set()


def test_what_is_not_ours_stays() -> None:
    snapshot = ending()
    other = {k: replace(v, owner_uid="another") for k, v in snapshot.objects.items()}

    assert deleted(replace(snapshot, objects=other, pods={})) == set()


def test_a_spec_that_can_not_be_understood_can_still_be_deleted_and_keeps_its_volumes() -> None:
    snapshot = ending(objects={}, pods={}, retention="Delete", claims={"data-c-p0-0": claim("data-c-p0-0")})
    snapshot = replace(snapshot, cluster=replace(snapshot.cluster, spec=None, spec_error="?"))

    assert deleted(snapshot) == set()
    assert lets_go(snapshot)


def test_an_end_posts_no_events_and_says_what_it_waits_for() -> None:
    made = plan(ending())

    assert made.events == ()
    assert made.status.phase == "Deleting"
    assert "waiting for the end of c-p0-0" in told(made.status, "Progressing").message
