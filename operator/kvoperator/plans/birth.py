"""A cluster's birth: identity, map and the first state of each partition, made once (decisions.md)."""

from collections import Counter
from collections.abc import Iterable

from kvcommon.slotmap import SlotMap
from kvcoord.contract import ClusterIdentity, MemberInfo, PartitionState
from kvoperator.actions import Action, CreateIdentity, CreateMap, CreatePartition
from kvoperator.snapshot import CoordinationView, Snapshot
from kvoperator.spec import KVClusterSpec

RECOVERY = (
    "the nodes put it back from their disks once every replica that was in sync has answered; what they wait for: "
    "`kubectl exec <a node of the partition> -- kvrecover`"
)
"""What a person can do about lost data."""


def all_there(coordination: CoordinationView, spec: KVClusterSpec) -> bool:
    """Whether nothing of the coordination data is missing."""
    return (
        coordination.identity is not None
        and coordination.slot_map is not None
        and all(p in coordination.partitions for p in range(spec.partitions))
    )


def lost_data(snapshot: Snapshot, spec: KVClusterSpec) -> str:
    """Why what is missing was there once, for a person; empty when nothing is missing or nothing was ever there."""
    coordination = snapshot.coordination
    if coordination is None or all_there(coordination, spec):
        return ""
    missing = [p for p in range(spec.partitions) if p not in coordination.partitions]
    what = f"the state of partitions {', '.join(map(str, missing))}" if missing else "the cluster's identity or map"
    if snapshot.cluster.status.born:
        return f"{what} is missing in ZooKeeper, and was there before"
    used = sorted(m.pod for m in coordination.members.values() if m.partition in missing and not m.empty)
    if used:
        return f"{what} is missing in ZooKeeper, but {used[0]} has data on its volume"
    return ""


def other_shape(snapshot: Snapshot, spec: KVClusterSpec) -> str:
    """How the cluster that is kept in ZooKeeper and on the volumes differs from what the spec asks for."""
    identity = snapshot.coordination.identity if snapshot.coordination else None
    if identity is None or (identity.partitions, identity.replicas) == (spec.partitions, spec.replicas):
        return ""
    return (
        f"the data that is kept is that of {identity.partitions} partitions of {identity.replicas} replicas; the spec "
        f"asks for {spec.partitions} of {spec.replicas}"
    )


def first_members(snapshot: Snapshot, spec: KVClusterSpec, partition: int) -> tuple[MemberInfo, ...] | None:
    """The members that a partition begins with: all of its first replicas, registered and empty. None: not yet."""
    coordination = snapshot.coordination
    assert coordination is not None
    pods = snapshot.names.replicas(partition, spec.replicas)
    members = [coordination.members[p] for p in pods if p in coordination.connected and p in coordination.members]
    if len(members) < len(pods) or not all(m.empty and m.partition == partition for m in members):
        return None
    return tuple(members)


def unregistered(snapshot: Snapshot, spec: KVClusterSpec) -> tuple[str, ...]:
    """Pods whose registration a birth still waits for."""
    connected = snapshot.coordination.connected if snapshot.coordination else frozenset()
    pods = (pod for p in range(spec.partitions) for pod in snapshot.names.replicas(p, spec.replicas))
    return tuple(pod for pod in pods if pod not in connected)


def births(snapshot: Snapshot, spec: KVClusterSpec, cluster_id: str) -> list[Action]:
    """What is still to be made, and may be. A creation that loses to one that is there already is done."""
    coordination = snapshot.coordination
    if (
        coordination is None
        or all_there(coordination, spec)
        or lost_data(snapshot, spec)
        or other_shape(snapshot, spec)
    ):
        return []
    leading = Counter(_first_nodes(snapshot, coordination.partitions.values()))
    created: list[Action] = []
    for partition in range(spec.partitions):
        if partition in coordination.partitions:
            continue
        members = first_members(snapshot, spec, partition)
        if members is None:
            continue
        ordered = _spread(snapshot, members, partition, leading)
        state = first_state(ordered, snapshot.names.replicas(partition, spec.replicas), spec)
        created.append(CreatePartition(partition, state, coordination.session))
    if not created and coordination.partitions.keys() < set(range(spec.partitions)):
        return []
    actions: list[Action] = []
    if coordination.identity is None:
        identity = ClusterIdentity(cluster_id, snapshot.names.cluster, spec.partitions, spec.replicas)
        actions.append(CreateIdentity(identity, coordination.session))
    if coordination.slot_map is None:
        actions.append(CreateMap(spec.partitions, coordination.session))
    return actions + created


def first_state(members: Iterable[MemberInfo], pods: tuple[str, ...], spec: KVClusterSpec) -> PartitionState:
    """The first state: nobody leads, all are in sync; the first in the list is the first to claim."""
    return PartitionState(
        epoch=0,
        leader=None,
        in_sync=tuple(member.replica for member in members),
        replicas=pods,
        min_in_sync=spec.min_in_sync,
    )


def first_map(partitions: int) -> SlotMap:
    """The first map."""
    return SlotMap.even(partitions)


def _first_nodes(snapshot: Snapshot, states: Iterable[PartitionState]) -> list[str]:
    first = (state.leader.replica.pod if state.leader else state.in_sync[0].pod for state in states if state.in_sync)
    return [snapshot.pods[pod].node for pod in first if pod in snapshot.pods]


def _spread(
    snapshot: Snapshot, members: tuple[MemberInfo, ...], partition: int, leading: Counter[str]
) -> tuple[MemberInfo, ...]:
    """In claim order: first the one whose machine leads least so far, so that the work is spread from the beginning."""
    turn = partition % len(members)
    rotated = members[turn:] + members[:turn]

    def node(member: MemberInfo) -> str:
        pod = snapshot.pods.get(member.pod)
        return pod.node if pod else ""

    first = min(rotated, key=lambda m: leading[node(m)])
    leading[node(first)] += 1
    return (first, *(m for m in rotated if m is not first))
