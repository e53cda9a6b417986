"""Views of Kubernetes objects: pure functions from the API server's JSON. Anything missing reads as empty."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from kvcommon.errors import ConfigurationError
from kvoperator.names import (
    LABEL_CLUSTER,
    LABEL_CLUSTER_ID,
    LABEL_COMPONENT,
    LABEL_PARTITION,
    LABEL_ROLE,
    NODE_CONTAINER,
    ROUTER_CONTAINER,
    ZOOKEEPER_CONTAINER,
    Names,
)
from kvoperator.snapshot import (
    ClaimView,
    ClusterView,
    DeploymentView,
    Ended,
    ObjectKey,
    ObjectView,
    PodView,
    StatefulSetView,
)
from kvoperator.spec import KVClusterSpec, parse_spec
from kvoperator.status import parse_status

Json = Mapping[str, Any]
MAIN_CONTAINERS = (NODE_CONTAINER, ROUTER_CONTAINER, ZOOKEEPER_CONTAINER)
RUN = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,127}")
NOT_SEEN_ENDING = frozenset({"ContainerStatusUnknown"})
"""The kubelet's words for a container whose end it did not see."""


def view_cluster(body: Json) -> ClusterView:
    """The KVCluster itself; a spec that can't be understood is kept as its error."""
    meta = body["metadata"]
    spec: KVClusterSpec | None = None
    problem = ""
    try:
        spec = parse_spec(body.get("spec"))
    except ConfigurationError as error:
        problem = str(error)
    return ClusterView(
        names=Names(meta["name"], meta["namespace"]),
        uid=meta["uid"],
        generation=int(meta.get("generation", 0)),
        spec=spec,
        spec_error=problem,
        status=parse_status(body.get("status")),
        finalizers=tuple(meta.get("finalizers", ())),
        deleting_since=parse_time(meta.get("deletionTimestamp")),
    )


def view_object(kind: str, body: Json) -> ObjectView:
    """Whose it is, and whether someone has changed it."""
    meta = body["metadata"]
    owner = next((o["uid"] for o in meta.get("ownerReferences", ()) if o.get("controller")), "")
    return ObjectView(
        key=ObjectKey(kind, meta["name"]),
        uid=meta["uid"],
        owner_uid=owner,
        deleting="deletionTimestamp" in meta,
        mark=str(meta.get("generation") or meta.get("resourceVersion", "")),
    )


def view_pod(body: Json) -> PodView:
    """A pod with its one container that matters."""
    meta, spec, status = body["metadata"], body.get("spec", {}), body.get("status", {})
    labels = meta.get("labels", {})
    conditions = {c["type"]: c for c in status.get("conditions", ())}
    container = _container(status)
    waiting = container.get("state", {}).get("waiting", {})
    last = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated") or {}
    scheduled = conditions.get("PodScheduled", {})
    unschedulable = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    partition = labels.get(LABEL_PARTITION, "")
    return PodView(
        name=meta["name"],
        uid=meta["uid"],
        component=labels.get(LABEL_COMPONENT, ""),
        partition=int(partition) if partition.isdigit() else None,
        node=spec.get("nodeName", ""),
        role=labels.get(LABEL_ROLE, ""),
        revision=labels.get("controller-revision-hash", ""),
        ready=conditions.get("Ready", {}).get("status") == "True",
        deleting="deletionTimestamp" in meta,
        running="running" in container.get("state", {}),
        waiting=waiting.get("reason", ""),
        waiting_message=waiting.get("message", ""),
        image=container.get("image") or _image(spec),
        restarts=int(container.get("restartCount", 0)),
        exit_code=last.get("exitCode"),
        unschedulable=str(scheduled.get("message") or "no reason given") if unschedulable else "",
        unschedulable_since=parse_time(scheduled.get("lastTransitionTime")) if unschedulable else None,
        ended=ended_runs(container),
    )


def ended_runs(container: Json) -> tuple[Ended, ...]:
    """Runs that the kubelet reports as terminated, the last first. A message that is not a run's id names none."""
    found = []
    for state in ("state", "lastState"):
        terminated = container.get(state, {}).get("terminated")
        if not terminated or terminated.get("reason") in NOT_SEEN_ENDING:
            continue
        run = str(terminated.get("message") or "").strip()
        if RUN.fullmatch(run):
            found.append(Ended(run, str(terminated.get("containerID") or "")))
    return tuple(found)


def _container(status: Json) -> Json:
    for container in status.get("containerStatuses", ()):
        if container.get("name") in MAIN_CONTAINERS:
            result: Json = container
            return result
    return {}


def _image(spec: Json) -> str:
    return next((str(c.get("image", "")) for c in spec.get("containers", ()) if c.get("name") in MAIN_CONTAINERS), "")


def view_statefulset(body: Json) -> StatefulSetView:
    """A StatefulSet."""
    meta, spec, status = body["metadata"], body.get("spec", {}), body.get("status", {})
    return StatefulSetView(
        name=meta["name"],
        settled=int(status.get("observedGeneration", 0)) >= int(meta.get("generation", 0)),
        update_revision=str(status.get("updateRevision", "")),
        replicas=int(status.get("replicas", 0)),
        ready=int(status.get("readyReplicas", 0)),
        claim_templates=tuple(_without_status(t) for t in spec.get("volumeClaimTemplates", ())),
    )


def _without_status(template: Json) -> dict[str, Any]:
    return {key: value for key, value in template.items() if key != "status"}


def view_deployment(body: Json) -> DeploymentView:
    """The routers' Deployment."""
    meta, status = body["metadata"], body.get("status", {})
    return DeploymentView(
        settled=int(status.get("observedGeneration", 0)) >= int(meta.get("generation", 0)),
        replicas=int(status.get("replicas", 0)),
        updated=int(status.get("updatedReplicas", 0)),
        ready=int(status.get("readyReplicas", 0)),
    )


def view_claim(body: Json) -> ClaimView:
    """A volume claim."""
    meta = body["metadata"]
    labels = meta.get("labels", {})
    return ClaimView(
        name=meta["name"],
        uid=meta["uid"],
        cluster=labels.get(LABEL_CLUSTER, ""),
        cluster_id=labels.get(LABEL_CLUSTER_ID, ""),
        component=labels.get(LABEL_COMPONENT, ""),
        requested=str(body.get("spec", {}).get("resources", {}).get("requests", {}).get("storage", "0")),
        deleting="deletionTimestamp" in meta,
    )


def parse_time(text: str | None) -> datetime | None:
    """A Kubernetes time, in UTC."""
    if not text:
        return None
    return datetime.fromisoformat(text).astimezone(UTC)
