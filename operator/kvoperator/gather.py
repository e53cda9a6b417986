"""Gathering the snapshot's Kubernetes part: a few lists, all at once."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from kvoperator.kube import Json, Kube
from kvoperator.names import LABEL_CLUSTER, Names
from kvoperator.observe import view_claim, view_deployment, view_object, view_pod, view_statefulset
from kvoperator.snapshot import ClaimView, DeploymentView, ObjectKey, ObjectView, PodView, StatefulSetView

OWNED_KINDS = ("Service", "StatefulSet", "Deployment", "PodDisruptionBudget")


@dataclass(frozen=True)
class Gathered:
    """What Kubernetes has of one KVCluster."""

    objects: dict[ObjectKey, ObjectView] = field(default_factory=dict)
    statefulsets: dict[str, StatefulSetView] = field(default_factory=dict)
    routers: DeploymentView | None = None
    pods: dict[str, PodView] = field(default_factory=dict)
    claims: dict[str, ClaimView] = field(default_factory=dict)
    zookeeper_address: str = ""  # the client Service's cluster IP


async def gather(kube: Kube, names: Names, wanted: Iterable[ObjectKey]) -> Gathered:
    """What there is with this cluster's label, and, under the names it wants, without.

    Raises:
        KubeError: something could not be read; then nothing is decided.

    """
    selector = f"{LABEL_CLUSTER}={names.cluster}"
    lists = await asyncio.gather(
        *(kube.list(kind, names.namespace, selector) for kind in (*OWNED_KINDS, "Pod")),
        kube.list("PersistentVolumeClaim", names.namespace),
    )
    owned: dict[ObjectKey, Json] = {
        ObjectKey(kind, body["metadata"]["name"]): body
        for kind, bodies in zip(OWNED_KINDS, lists[: len(OWNED_KINDS)], strict=True)
        for body in bodies
    }
    # Without our label it is found by its name only: someone else's, or nobody's yet.
    missing = [key for key in wanted if key not in owned]
    found = await asyncio.gather(*(kube.get(key.kind, names.namespace, key.name) for key in missing))
    owned |= {key: body for key, body in zip(missing, found, strict=True) if body is not None}
    pods = [view_pod(body) for body in lists[-2]]
    claims = [view_claim(body) for body in lists[-1]]
    router = owned.get(ObjectKey("Deployment", names.router))
    service = owned.get(ObjectKey("Service", names.zookeeper), {})
    return Gathered(
        objects={key: view_object(key.kind, body) for key, body in owned.items()},
        statefulsets={key.name: view_statefulset(b) for key, b in owned.items() if key.kind == "StatefulSet"},
        routers=view_deployment(router) if router else None,
        pods={pod.name: pod for pod in pods},
        claims={claim.name: claim for claim in claims},
        zookeeper_address=str(service.get("spec", {}).get("clusterIP", "")),
    )
