"""What the planner may ask for. Every action can be repeated, and names what it means by uid where it could meet another."""

from dataclasses import dataclass, field
from typing import Any, Literal

from kvcoord.contract import ClusterIdentity, Death, PartitionState
from kvoperator.snapshot import ObjectKey


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Keep the KVCluster until what was made for it is gone."""


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """All is gone: let the KVCluster go."""


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply. `uid` is that of the object that is there, None when there is none."""

    key: ObjectKey
    uid: str | None
    digest: str
    manifest: dict[str, Any] = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class DeleteObject:
    """Delete an object of ours, and by Kubernetes' hand what belongs to it. Pods end as gracefully as they ever do."""

    key: ObjectKey
    uid: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class GrowClaim:
    """Ask for a larger volume."""

    name: str
    uid: str
    size: str


@dataclass(frozen=True, slots=True)
class LabelPod:
    """Say which role a pod has."""

    name: str
    uid: str
    role: str


@dataclass(frozen=True, slots=True)
class CreateIdentity:
    """The first word in the coordination data. `session`, as in those below: in which that was found empty."""

    identity: ClusterIdentity
    session: int | None = None


@dataclass(frozen=True, slots=True)
class CreateMap:
    """The first map: all slots, evenly."""

    partitions: int
    session: int | None = None


@dataclass(frozen=True, slots=True)
class CreatePartition:
    """A partition's birth."""

    partition: int
    state: PartitionState
    session: int | None = None


@dataclass(frozen=True, slots=True)
class ReportDeath:
    """The word of death (rule 7)."""

    death: Death


Action = (
    AddFinalizer
    | RemoveFinalizer
    | Apply
    | DeleteObject
    | GrowClaim
    | LabelPod
    | CreateIdentity
    | CreateMap
    | CreatePartition
    | ReportDeath
)


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes Event on the KVCluster, for a person."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str
