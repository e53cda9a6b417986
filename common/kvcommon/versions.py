"""Record versions: a hybrid logical clock with the partition in it.

64 bits: 42 of milliseconds since 2020-01-01 UTC, 10 of partition, 12 of counter. Unique in the cluster because only a
partition's leader makes that partition's; growing per partition because a leader starts above its whole log.
Source: Kulkarni et al., "Logical Physical Clocks", 2014.
"""

from dataclasses import dataclass

EPOCH_MS = 1_577_836_800_000  # 2020-01-01T00:00:00Z
MAX_PARTITIONS = 1024
MAX_AHEAD_MS = 1000
_COUNTER_BITS = 12
_PARTITION_BITS = 10
_MS_SHIFT = _COUNTER_BITS + _PARTITION_BITS
_COUNTER_MASK = (1 << _COUNTER_BITS) - 1
MAX_TAKEN = 1 << _COUNTER_BITS  # versions at once


def pack_version(ms: int, partition: int, counter: int) -> int:
    """A version from milliseconds since 2020, partition and counter."""
    return ms << _MS_SHIFT | partition << _COUNTER_BITS | counter


def version_ms(version: int) -> int:
    """Milliseconds since 2020 in a version."""
    return version >> _MS_SHIFT


def version_partition(version: int) -> int:
    """The partition whose leader made the version."""
    return version >> _COUNTER_BITS & (MAX_PARTITIONS - 1)


@dataclass(slots=True)
class VersionClock:
    """Makes versions of one partition; `last` is the highest made or seen."""

    partition: int
    last: int = 0

    def next(self, wall_ms: int) -> int:
        """A version above all before it; `wall_ms` is Unix time in milliseconds."""
        ms, last = wall_ms - EPOCH_MS, self.last
        if ms > last >> _MS_SHIFT:
            self.last = ms << _MS_SHIFT | self.partition << _COUNTER_BITS
        elif last & _COUNTER_MASK == _COUNTER_MASK:
            self.last = ((last >> _MS_SHIFT) + 1) << _MS_SHIFT | self.partition << _COUNTER_BITS
        else:
            self.last = last + 1
        return self.last

    def take(self, count: int, wall_ms: int) -> int:
        """The first of `count` versions that follow each other, all above those before; at most MAX_TAKEN at once."""
        assert 0 < count <= MAX_TAKEN, count
        first = self.next(wall_ms)
        if (first & _COUNTER_MASK) + count > MAX_TAKEN:  # they would run over into the partition's bits
            first = pack_version(version_ms(first) + 1, self.partition, 0)
        self.last = first + count - 1
        return first

    def observe(self, version: int) -> None:
        """Make later versions greater than this one, which may be another partition's."""
        if version > self.last:
            ms = version_ms(version)
            ours = pack_version(ms, self.partition, _COUNTER_MASK)
            self.last = ours if ours >= version else pack_version(ms + 1, self.partition, 0)

    @staticmethod
    def too_far_ahead(version: int, wall_ms: int) -> bool:
        """Whether a client's observed version is more than a second ahead of this clock (rule 18)."""
        return version_ms(version) > wall_ms - EPOCH_MS + MAX_AHEAD_MS
