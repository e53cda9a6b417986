"""The map: which partition owns which slots, at which version."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from kvcommon.errors import KVClusterError
from kvcommon.slots import SLOTS, slots_of


@dataclass(frozen=True, slots=True, order=True)
class SlotRange:
    """Slots `first..last`, both inclusive, owned by `partition`."""

    first: int
    last: int
    partition: int


@dataclass(frozen=True)
class SlotMap:
    """All 16384 slots, each owned by one partition. `version` grows by one with every change."""

    version: int
    ranges: tuple[SlotRange, ...]
    owners: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raise KVClusterError unless the ranges are ascending, disjoint and cover every slot."""
        owners: list[int] = []
        for r in self.ranges:
            if r.first != len(owners) or r.last < r.first:
                msg = f"map version {self.version}: range {r.first}..{r.last} does not continue at slot {len(owners)}"
                raise KVClusterError(msg)
            if r.last >= SLOTS:
                msg = f"map version {self.version}: range {r.first}..{r.last} ends behind slot {SLOTS - 1}"
                raise KVClusterError(msg)
            owners.extend([r.partition] * (r.last - r.first + 1))
        if len(owners) != SLOTS:
            msg = f"map version {self.version} covers {len(owners)} of {SLOTS} slots"
            raise KVClusterError(msg)
        object.__setattr__(self, "owners", tuple(owners))

    @property
    def partitions(self) -> tuple[int, ...]:
        """Numbers of the partitions that own slots, ascending."""
        return tuple(sorted({r.partition for r in self.ranges}))

    def owners_of(self, keys: Sequence[bytes]) -> list[int]:
        """Which partition owns each key; where one owns all, no key is looked at."""
        if len(self.ranges) == 1:
            return [self.ranges[0].partition] * len(keys)
        return list(map(self.owners.__getitem__, slots_of(keys)))

    def slots_of(self, partition: int) -> int:
        """How many slots a partition owns."""
        return sum(r.last - r.first + 1 for r in self.ranges if r.partition == partition)

    @classmethod
    def even(cls, partitions: int, version: int = 1) -> "SlotMap":
        """The first map of a cluster: contiguous shares that differ by one slot at most."""
        bounds = [SLOTS * p // partitions for p in range(partitions + 1)]
        return cls(version, tuple(SlotRange(bounds[p], bounds[p + 1] - 1, p) for p in range(partitions)))

    @classmethod
    def of_ranges(cls, version: int, ranges: Sequence[tuple[int, int, int]]) -> "SlotMap":
        """A map from (first, last, partition) rows in any order."""
        return cls(version, tuple(sorted(SlotRange(*r) for r in ranges)))
