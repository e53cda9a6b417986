"""Snapshots to decide on: a healthy cluster of 2 partitions x 3 replicas, and ways to hurt it."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from kvcommon.slotmap import SlotMap
from kvcoord.contract import ClusterIdentity, MemberInfo, PartitionState, ReplicaId, RunId
from kvoperator.names import COMPONENT_NODE, COMPONENT_ROUTER, FINALIZER, Names
from kvoperator.planner import plan
from kvoperator.plans.objects import desired, digest_of, key_of
from kvoperator.snapshot import (
    Applied,
    ClusterView,
    CoordinationView,
    DeploymentView,
    ObjectView,
    PodView,
    Snapshot,
    StatefulSetView,
)
from kvoperator.spec import KVClusterSpec, parse_spec
from kvoperator.status import Condition, KVClusterStatus

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
ID = "5f0c1c52-1111-4222-8333-444455556666"
FRESH = "00000000-aaaa-4bbb-8ccc-dddddddddddd"
UID = "uid-of-c"
NAMES = Names("c", "ns")
SPEC = parse_spec({"partitions": 2})


def pod(name: str, **changes: Any) -> PodView:
    """A pod of a partition that is as it should be; `c-p1-2` is the third of partition 1."""
    partition = int(name.split("-p")[1].split("-", maxsplit=1)[0])
    ordinal = int(name.rsplit("-", 1)[1])
    healthy = PodView(
        name=name,
        uid=f"uid-{name}",
        component=COMPONENT_NODE,
        partition=partition,
        node=f"node-{ordinal}",
        role="leader" if ordinal == 0 else "follower",
        revision=f"c-p{partition}-new",
        ready=True,
        running=True,
        image="kvcluster:dev",
    )
    return replace(healthy, **changes)


def replica(name: str) -> ReplicaId:
    return ReplicaId(name, f"inc-{name}")


def member(name: str, *, empty: bool = False, trouble: str = "") -> MemberInfo:
    return MemberInfo(
        pod=name,
        partition=int(name.split("-p")[1].split("-", maxsplit=1)[0]),
        replica=replica(name),
        run=f"run-{name}",
        grpc_address="10.0.0.1:7400",
        replication_address="10.0.0.1:7401",
        http_address="10.0.0.1:7480",
        empty=empty,
        trouble=trouble,
    )


def state(
    partition: int, *, leader: int | None = 0, in_sync: tuple[int, ...] = (0, 1, 2), epoch: int = 4
) -> PartitionState:
    names = NAMES.replicas(partition, 3)
    run = RunId(replica(names[leader]), f"run-{names[leader]}") if leader is not None else None
    return PartitionState(epoch, run, tuple(replica(names[i]) for i in in_sync), names, 2)


def all_pods(spec: KVClusterSpec = SPEC) -> tuple[str, ...]:
    return tuple(name for p in range(spec.partitions) for name in NAMES.replicas(p, spec.replicas))


def coordination(
    states: Mapping[int, PartitionState] | None = None, *, empty: bool = False, away: tuple[str, ...] = ()
) -> CoordinationView:
    """What coordination says of a cluster that was born."""
    return CoordinationView(
        identity=ClusterIdentity(ID, "c", 2, 3),
        slot_map=SlotMap.even(2),
        partitions={0: state(0), 1: state(1)} if states is None else states,
        members={name: member(name, empty=empty) for name in all_pods()},
        connected=frozenset(all_pods()) - set(away),
    )


def unborn(*, empty: bool = True, away: tuple[str, ...] = ()) -> CoordinationView:
    """Coordination with nothing in it but registrations."""
    return replace(coordination({}, empty=empty, away=away), identity=None, slot_map=None)


def cluster(**changes: Any) -> ClusterView:
    healthy = ClusterView(
        names=NAMES,
        uid=UID,
        generation=1,
        spec=SPEC,
        spec_error="",
        status=KVClusterStatus(clusterId=ID, born=True),
        finalizers=(FINALIZER,),
    )
    return replace(healthy, **changes)


def healthy(**changes: Any) -> Snapshot:
    """A cluster that is all right: everything applied, serving, and its status written."""
    spec = changes["cluster"].spec if "cluster" in changes else SPEC
    bare = Snapshot(cluster(), NOW, FRESH, "kvcluster:dev")
    manifests = desired(bare, spec or SPEC, ID)
    objects = {key_of(m): ObjectView(key_of(m), f"uid-{key_of(m).name}", UID, False, "1") for m in manifests}
    routers = {
        name: PodView(name=name, uid=name, component=COMPONENT_ROUTER, ready=True, running=True)
        for name in ("c-router-a", "c-router-b")
    }
    whole = replace(
        bare,
        objects=objects,
        applied={key_of(m): Applied(digest_of(m), f"uid-{key_of(m).name}", "1") for m in manifests},
        statefulsets={
            "c-zk": StatefulSetView("c-zk", True, "", 3, 3),
            **{f"c-p{p}": StatefulSetView(f"c-p{p}", True, f"c-p{p}-new", 3, 3) for p in range(2)},
        },
        routers=DeploymentView(True, 2, 2, 2),
        pods={**{name: pod(name) for name in all_pods()}, **routers},
        coordination=coordination(),
    )
    settled = replace(
        whole, cluster=replace(whole.cluster, status=plan(replace(whole, now=NOW - timedelta(hours=1))).status)
    )
    return replace(settled, **changes)


def told(status: KVClusterStatus, kind: str) -> Condition:
    """The condition of this type, which is always there."""
    condition = status.condition(kind)
    assert condition is not None
    return condition


def with_pods(snapshot: Snapshot, *pods: PodView) -> Snapshot:
    return replace(snapshot, pods={**snapshot.pods, **{p.name: p for p in pods}})


def without_pods(snapshot: Snapshot, *names: str) -> Snapshot:
    return replace(snapshot, pods={name: p for name, p in snapshot.pods.items() if name not in names})


def with_status(snapshot: Snapshot, **changes: Any) -> Snapshot:
    status = snapshot.cluster.status.model_copy(update=changes)
    return replace(snapshot, cluster=replace(snapshot.cluster, status=status))
