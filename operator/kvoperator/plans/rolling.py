"""Rolling changes: which pod of an older revision may go now, so that Kubernetes makes it anew.

Followers before leaders, one pod of the whole cluster at a time, the next only when the one before serves again, and only
while the others of its partition are in sync and ready. So what is wrong with a new revision costs one follower. A pod that does
not run at all takes nothing away: it goes at once.
"""

from kvcoord.contract import PartitionState
from kvoperator.actions import Action, DeleteObject
from kvoperator.names import COMPONENT_NODE
from kvoperator.snapshot import ObjectKey, PodView, Snapshot
from kvoperator.spec import KVClusterSpec

IDLE = frozenset(
    {
        "ImagePullBackOff",
        "ErrImagePull",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "CreateContainerError",
        "CrashLoopBackOff",
        "RunContainerError",
    }
)


def outdated(snapshot: Snapshot, partition: int) -> list[PodView]:
    """Pods of an older revision than their StatefulSet's; none while its controller has not seen the newest spec."""
    view = snapshot.statefulsets.get(snapshot.names.partition(partition))
    if view is None or not view.settled or not view.update_revision:
        return []
    pods = (p for p in snapshot.pods.values() if p.component == COMPONENT_NODE and p.partition == partition)
    return sorted((p for p in pods if p.revision and p.revision != view.update_revision), key=lambda p: p.name)


def replacements(snapshot: Snapshot, spec: KVClusterSpec, changing: frozenset[ObjectKey]) -> list[Action]:
    """Pods to delete now. `changing` are objects about to be applied: their revision is not known yet."""
    if any(p.deleting for p in snapshot.pods.values() if p.component == COMPONENT_NODE):
        return []
    known = [p for p in range(spec.partitions) if ObjectKey("StatefulSet", snapshot.names.partition(p)) not in changing]
    old = {partition: outdated(snapshot, partition) for partition in known}
    idle = [p for pods in old.values() for p in pods if not p.running and (p.waiting in IDLE or p.unschedulable)]
    if idle:
        return [_delete(p, "does not run, and is of an older revision") for p in idle]
    if not all(_new_ones_serve(snapshot, spec, partition, pods) for partition, pods in old.items()):
        return []
    for partition, pods in old.items():
        chosen = _next(snapshot, spec, partition, pods)
        if chosen is not None:
            return [_delete(chosen, "is of an older revision, and the others of its partition are in sync")]
    return []


def _new_ones_serve(snapshot: Snapshot, spec: KVClusterSpec, partition: int, old: list[PodView]) -> bool:
    """Whether the pods of a partition that have been replaced already are back, and serve."""
    state = snapshot.coordination.partitions.get(partition) if snapshot.coordination else None
    still = {pod.name for pod in old}
    new = [name for name in snapshot.names.replicas(partition, spec.replicas) if name not in still]
    return state is not None and all(_serves(snapshot, state, name) for name in new)


def _next(snapshot: Snapshot, spec: KVClusterSpec, partition: int, old: list[PodView]) -> PodView | None:
    state = snapshot.coordination.partitions.get(partition) if snapshot.coordination else None
    if state is None or state.leader is None or not old:
        return None
    leader = state.leader.replica.pod
    for pod in sorted(old, key=lambda p: (p.name == leader, p.name)):
        others = [name for name in snapshot.names.replicas(partition, spec.replicas) if name != pod.name]
        if all(_serves(snapshot, state, name) for name in others):
            return pod
    return None


def _serves(snapshot: Snapshot, state: PartitionState, name: str) -> bool:
    pod = snapshot.pods.get(name)
    in_sync = {replica.pod for replica in state.in_sync}
    connected = snapshot.coordination is not None and name in snapshot.coordination.connected
    return pod is not None and pod.ready and name in in_sync and connected


def _delete(pod: PodView, why: str) -> DeleteObject:
    return DeleteObject(ObjectKey("Pod", pod.name), pod.uid, f"{pod.name} {why}")
