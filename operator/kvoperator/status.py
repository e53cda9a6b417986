"""What the operator answers: the status of a KVCluster, as pydantic models. The CRD is generated from them (crd.py)."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class StatusModel(BaseModel):
    """Base of all parts of the status; what a newer operator wrote and this one does not know is left out."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Condition(StatusModel):
    """One answer to one question, as Kubernetes writes conditions."""

    type: Literal["Available", "Progressing", "Degraded"]
    status: Literal["True", "False", "Unknown"]
    reason: str = Field(description="One word for programs; docs/operator.md lists them with what to do.")
    message: str = Field(description="For a person.")
    lastTransitionTime: str = Field(json_schema_extra={"format": "date-time"})  # noqa: N815 - the manifest's name
    observedGeneration: int = 0  # noqa: N815 - the manifest's name


class PartitionRow(StatusModel):
    """One partition, as coordination and its pods show it."""

    partition: int
    leader: str = Field("", description="Pod name; empty: none yet.")
    epoch: int = 0
    serial: int = Field(0, description="Of the newest state that the operator has seen; each change raises it.")
    generation: int = Field(0, description="Of that state: how often coordination's data was put back, and one.")
    inSync: list[str] = Field(default_factory=list, description="Pod names, in claim order.")  # noqa: N815 - the manifest's name
    replicas: int = Field(0, description="Pods that belong here.")
    ready: int = Field(0, description="Pods that are ready.")

    @property
    def age(self) -> tuple[int, int]:
        """That of the newest state that any life of the operator has written down (`PartitionState.age`)."""
        return self.generation, self.serial


class KVClusterStatus(StatusModel):
    """What is, as far as the operator can see."""

    observedGeneration: int = Field(0, description="The generation of the spec that this status answers.")  # noqa: N815 - the manifest's name
    phase: str = Field("", description="Creating, Ready, Degraded, Unavailable or Deleting.")
    clusterId: str = Field("", description="UUID, made once; on disks, volume claims and in ZooKeeper.")  # noqa: N815 - the manifest's name
    born: bool = Field(False, description="All partitions have had their first state; it must never be missing again.")
    endpoint: str = Field("", description="host:port of the routers' Service.")
    readyPartitions: str = Field("", description="Partitions whose leader serves, of all.")  # noqa: N815 - the manifest's name
    inSyncReplicas: str = Field("", description="Replicas in sync, of all.")  # noqa: N815 - the manifest's name
    routers: int = Field(0, description="Router pods that exist; for the scale subresource.")
    routerSelector: str = Field("", description="Label selector of the routers; for the scale subresource.")  # noqa: N815 - the manifest's name
    conditions: list[Condition] = Field(
        default_factory=list,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    partitions: list[PartitionRow] = Field(
        default_factory=list,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["partition"]},
    )

    def condition(self, kind: str) -> Condition | None:
        """The condition of this type, if it was ever written."""
        return next((c for c in self.conditions if c.type == kind), None)

    def row(self, partition: int) -> PartitionRow | None:
        """The row of this partition, if it was ever written."""
        return next((r for r in self.partitions if r.partition == partition), None)


def parse_status(value: object) -> KVClusterStatus:
    """The status found on an object; anything unreadable counts as none, for it will be written anew."""
    try:
        return KVClusterStatus.model_validate(value or {})
    except ValueError:
        kept = value if isinstance(value, dict) else {}
        return KVClusterStatus(clusterId=str(kept.get("clusterId") or ""), born=kept.get("born") is True)


def dump_status(status: KVClusterStatus) -> dict[str, Any]:
    """As it is written to the API server."""
    return status.model_dump(mode="json")
