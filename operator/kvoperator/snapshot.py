"""The frozen picture that the planner decides on: what was asked for, what there is, what coordination says.

observe.py makes the views of Kubernetes objects; nothing here asks anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kvcommon.slotmap import SlotMap
from kvcoord.contract import ClusterIdentity, MemberInfo, PartitionState
from kvoperator.names import Names
from kvoperator.spec import KVClusterSpec
from kvoperator.status import KVClusterStatus


@dataclass(frozen=True, slots=True, order=True)
class ObjectKey:
    """An object of ours within the cluster's namespace."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class ObjectView:
    """An object that has one of our names. `mark` changes whenever someone changes what it asks for."""

    key: ObjectKey
    uid: str
    owner_uid: str
    deleting: bool
    mark: str


@dataclass(frozen=True, slots=True)
class Applied:
    """What this operator last applied under a key, and the mark the object had right after."""

    digest: str
    uid: str
    mark: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A container that the kubelet reported as terminated, with the id of the run that its process left behind."""

    run: str
    container_id: str


@dataclass(frozen=True, slots=True)
class PodView:
    """A pod of ours. `waiting` is the reason why its container does not run, as Kubernetes words it."""

    name: str
    uid: str
    component: str
    partition: int | None = None
    node: str = ""
    role: str = ""
    revision: str = ""
    ready: bool = False
    deleting: bool = False
    running: bool = False
    waiting: str = ""
    waiting_message: str = ""
    image: str = ""
    restarts: int = 0
    exit_code: int | None = None
    unschedulable: str = ""
    unschedulable_since: datetime | None = None
    ended: tuple[Ended, ...] = ()


@dataclass(frozen=True, slots=True)
class StatefulSetView:
    """A StatefulSet of ours, as its controller has seen it."""

    name: str
    settled: bool  # the controller has seen the newest spec
    update_revision: str
    replicas: int
    ready: int
    claim_templates: tuple[Any, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class DeploymentView:
    """The routers' Deployment, as its controller has seen it."""

    settled: bool
    replicas: int
    updated: int
    ready: int


@dataclass(frozen=True, slots=True)
class ClaimView:
    """A volume claim with one of our names. `cluster` and `cluster_id` are what its labels say."""

    name: str
    uid: str
    cluster: str
    cluster_id: str
    component: str
    requested: str
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class CoordinationView:
    """What coordination says. `connected` are the pods whose registration is alive; `session`: in which it was asked."""

    identity: ClusterIdentity | None = None
    slot_map: SlotMap | None = None
    partitions: Mapping[int, PartitionState] = field(default_factory=dict)
    members: Mapping[str, MemberInfo] = field(default_factory=dict)
    connected: frozenset[str] = frozenset()
    session: int | None = None


@dataclass(frozen=True, slots=True)
class ClusterView:
    """The KVCluster object. `spec` is None when it can't be understood; `spec_error` says why."""

    names: Names
    uid: str
    generation: int
    spec: KVClusterSpec | None
    spec_error: str
    status: KVClusterStatus
    finalizers: tuple[str, ...] = ()
    deleting_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a decision rests on. `fresh_id` is a new UUID, for a cluster that has none yet."""

    cluster: ClusterView
    now: datetime
    fresh_id: str
    default_image: str
    objects: Mapping[ObjectKey, ObjectView] = field(default_factory=dict)
    statefulsets: Mapping[str, StatefulSetView] = field(default_factory=dict)
    routers: DeploymentView | None = None
    pods: Mapping[str, PodView] = field(default_factory=dict)
    claims: Mapping[str, ClaimView] = field(default_factory=dict)
    coordination: CoordinationView | None = None
    coordination_error: str = ""
    applied: Mapping[ObjectKey, Applied] = field(default_factory=dict)
    reported: Mapping[str, str] = field(default_factory=dict)  # pod -> run whose death was reported
    failures: tuple[str, ...] = ()  # what could not be done in the round before

    @property
    def names(self) -> Names:
        """The cluster's names."""
        return self.cluster.names
