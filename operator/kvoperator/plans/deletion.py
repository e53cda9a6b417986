"""The end of a KVCluster: nodes and routers first, then ZooKeeper, so that leadership is handed back in order; then volumes."""

from datetime import timedelta

from kvoperator.actions import Action, DeleteObject, RemoveFinalizer
from kvoperator.names import COMPONENT_NODE, COMPONENT_ROUTER, COMPONENT_ZOOKEEPER, FINALIZER
from kvoperator.snapshot import ObjectKey, ObjectView, Snapshot

PATIENCE = timedelta(seconds=60)
"""How long the end of pods is waited for: one on a lost machine never says that it has ended."""


def deletions(snapshot: Snapshot) -> tuple[list[Action], str]:
    """What to delete now, and what is waited for, for a person. Everything that is another's stays."""
    since = snapshot.cluster.deleting_since
    assert since is not None
    patient = snapshot.now - since < PATIENCE
    owned = [view for view in snapshot.objects.values() if view.owner_uid == snapshot.cluster.uid]
    first = [view for view in owned if not _of_zookeeper(snapshot, view)]
    actions = _delete(first)
    pods = _pods(snapshot, COMPONENT_NODE, COMPONENT_ROUTER)
    if (first or pods) and patient:
        return actions, f"waiting for the end of {_some(pods) or 'nodes and routers'}"
    rest = [view for view in owned if view not in first]
    actions += _delete(rest)
    pods = _pods(snapshot, COMPONENT_ZOOKEEPER)
    if (rest or pods) and patient:
        return actions, f"waiting for the end of {_some(pods) or 'ZooKeeper'}"
    actions += _volumes(snapshot)
    if FINALIZER in snapshot.cluster.finalizers:
        actions.append(RemoveFinalizer())
    return actions, "deleting the last of it"


def _of_zookeeper(snapshot: Snapshot, view: ObjectView) -> bool:
    return view.key.name in (snapshot.names.zookeeper, snapshot.names.zookeeper_peers)


def _delete(views: list[ObjectView]) -> list[Action]:
    return [DeleteObject(view.key, view.uid) for view in sorted(views, key=lambda v: v.key) if not view.deleting]


def _pods(snapshot: Snapshot, *components: str) -> list[str]:
    return sorted(pod.name for pod in snapshot.pods.values() if pod.component in components)


def _volumes(snapshot: Snapshot) -> list[Action]:
    spec = snapshot.cluster.spec
    if spec is None or spec.storage.retention != "Delete":
        return []
    cluster_id = snapshot.cluster.status.clusterId
    mine = [
        c
        for c in snapshot.claims.values()
        if c.cluster == snapshot.names.cluster and cluster_id and c.cluster_id == cluster_id and not c.deleting
    ]
    return [DeleteObject(ObjectKey("PersistentVolumeClaim", c.name), c.uid) for c in sorted(mine, key=lambda c: c.name)]


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
