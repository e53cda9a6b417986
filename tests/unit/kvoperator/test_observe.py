from typing import Any

import pytest

from kvoperator.observe import view_claim, view_cluster, view_object, view_pod, view_statefulset
from kvoperator.snapshot import Ended


def pod(**status: Any) -> dict[str, Any]:
    labels = {
        "app.kubernetes.io/component": "node",
        "kvcluster.dev/partition": "2",
        "kvcluster.dev/role": "leader",
        "controller-revision-hash": "c-p2-abc",
    }
    spec = {"nodeName": "node-1", "containers": [{"name": "kvnode", "image": "kv:1"}]}
    return {
        "metadata": {"name": "c-p2-0", "uid": "u", "namespace": "ns", "labels": labels},
        "spec": spec,
        "status": status,
    }


def container(**state: Any) -> dict[str, Any]:
    return {"name": "kvnode", "image": "kv:1", "restartCount": 3, **state}


def terminated(message: str, **more: Any) -> dict[str, Any]:
    return {
        "terminated": {"message": message, "containerID": "containerd://1", "exitCode": 137, "reason": "Error", **more}
    }


def test_a_running_pod() -> None:
    ready = {
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [container(state={"running": {}})],
    }
    view = view_pod(pod(**ready))

    assert (view.name, view.partition, view.component, view.role) == ("c-p2-0", 2, "node", "leader")
    assert (view.ready, view.running, view.node, view.revision, view.restarts) == (True, True, "node-1", "c-p2-abc", 3)
    assert view.ended == ()


def test_a_pod_that_has_no_status_yet() -> None:
    view = view_pod(pod())

    assert (view.ready, view.running, view.image, view.waiting) == (False, False, "kv:1", "")


def test_a_sidecar_is_not_looked_at() -> None:
    sidecar = {"name": "istio-proxy", "state": terminated("0123456789ab"), "restartCount": 9}
    view = view_pod(pod(containerStatuses=[sidecar, container(state={"running": {}})]))

    assert view.ended == ()
    assert view.restarts == 3


@pytest.mark.parametrize("where", ["state", "lastState"])
def test_an_end_names_the_run_that_the_node_left_behind(where: str) -> None:
    view = view_pod(pod(containerStatuses=[container(**{where: terminated("ff6f046f64bd\n")})]))

    assert view.ended == (Ended("ff6f046f64bd", "containerd://1"),)
    assert view.exit_code == 137


def test_the_last_end_comes_first() -> None:
    both = container(state=terminated("run-2"), lastState=terminated("run-1"))

    assert [e.run for e in view_pod(pod(containerStatuses=[both])).ended] == ["run-2", "run-1"]


@pytest.mark.parametrize(
    "state",
    [
        terminated(""),
        terminated("Traceback (most recent call last): ..."),
        terminated("The container could not be located when the pod was deleted"),
        terminated("ff6f046f64bd", reason="ContainerStatusUnknown"),
        {"waiting": {"reason": "CrashLoopBackOff", "message": "ff6f046f64bd"}},
        {"running": {"startedAt": "2026-11-21T08:00:00Z"}},
    ],
)
def test_nothing_else_is_the_kubelets_word_of_an_end(state: dict[str, Any]) -> None:
    assert view_pod(pod(containerStatuses=[container(state=state)])).ended == ()


def test_why_a_container_waits_and_a_pod_is_not_scheduled() -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    unscheduled = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes",
        "lastTransitionTime": "2026-11-21T08:00:00Z",
    }
    view = view_pod(pod(containerStatuses=[container(state=waiting)], conditions=[unscheduled]))

    assert (view.waiting, view.waiting_message) == ("ImagePullBackOff", "no such image")
    assert view.unschedulable == "0/3 nodes"
    assert view.unschedulable_since is not None


def test_only_a_controlling_owner_owns() -> None:
    owners = [{"uid": "friend"}, {"uid": "owner", "controller": True}]
    view = view_object(
        "Service", {"metadata": {"name": "c", "uid": "u", "ownerReferences": owners, "resourceVersion": "5"}}
    )

    assert (view.owner_uid, view.mark, view.deleting) == ("owner", "5", False)


def test_a_status_change_is_no_change_where_there_is_a_generation() -> None:
    meta = {"name": "c", "uid": "u", "generation": 3, "resourceVersion": "5"}

    assert view_object("StatefulSet", {"metadata": meta}).mark == "3"


def test_a_statefulset_is_settled_once_its_controller_has_seen_the_newest_spec() -> None:
    body: dict[str, Any] = {"metadata": {"name": "c-p0", "generation": 2}, "status": {"observedGeneration": 1}}
    assert not view_statefulset(body).settled

    body["status"]["observedGeneration"] = 2
    assert view_statefulset(body).settled


def test_claim_templates_are_kept_without_their_status() -> None:
    template = {"metadata": {"name": "data"}, "spec": {"x": 1}, "status": {"phase": "Pending"}}
    body = {"metadata": {"name": "c-p0"}, "spec": {"volumeClaimTemplates": [template]}}

    assert view_statefulset(body).claim_templates == ({"metadata": {"name": "data"}, "spec": {"x": 1}},)


def test_a_strangers_claim_has_no_cluster() -> None:
    view = view_claim({"metadata": {"name": "data-c-p0-0", "uid": "u"}, "spec": {}})

    assert (view.cluster, view.cluster_id, view.requested) == ("", "", "0")


def test_a_kvcluster_that_can_not_be_understood_keeps_its_name_and_id() -> None:
    body = {
        "metadata": {"name": "c", "namespace": "ns", "uid": "u", "generation": 2},
        "spec": {"partitions": "many"},
        "status": {"clusterId": "id", "born": True, "partitions": "garbage"},
    }
    view = view_cluster(body)

    assert view.spec is None
    assert "spec.partitions" in view.spec_error
    assert (view.status.clusterId, view.status.born) == ("id", True)
