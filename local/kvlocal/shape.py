"""What kvlocal needs to know of a cluster: the part of a KVCluster's spec that means something on one machine."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Shape:
    """A cluster's name and measures."""

    name: str
    partitions: int
    replicas: int
    min_in_sync: int
    durability: str = "fsync"  # or "memory"

    def pods_of(self, partition: int) -> tuple[str, ...]:
        """Pod names of a partition's first replicas, as in Kubernetes."""
        return tuple(f"{self.name}-p{partition}-{i}" for i in range(self.replicas))

    @property
    def pods(self) -> tuple[str, ...]:
        """All pod names, by partition and number."""
        return tuple(pod for partition in range(self.partitions) for pod in self.pods_of(partition))

    @property
    def router(self) -> str:
        """The router's name."""
        return f"{self.name}-router"

    def differences(self, stored: "Shape") -> tuple[str, ...]:
        """What differs from the shape a data folder was made with, each as `partitions is 3, was 2`."""
        mine, theirs = asdict(self), asdict(stored)
        return tuple(f"{key} is {mine[key]}, was {theirs[key]}" for key in mine if mine[key] != theirs[key])

    def to_json(self) -> dict[str, Any]:
        """As it is kept in the data folder."""
        return asdict(self)
