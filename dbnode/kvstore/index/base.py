"""What an index promises, and how a record's place is packed into one number.

A place is 12+ bits of segment number, 27 of offset and 21 of length: up to 4,096 segments it is an int of 32 bytes.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, Protocol

LENGTH_BITS: Final = 21
OFFSET_BITS: Final = 27
LENGTH_MASK: Final = (1 << LENGTH_BITS) - 1
_OFFSET_MASK: Final = (1 << OFFSET_BITS) - 1
SEGMENT_SHIFT: Final = LENGTH_BITS + OFFSET_BITS
MAX_OFFSET: Final = _OFFSET_MASK


def pack_place(segment: int, offset: int, length: int) -> int:
    """A record's place: segment number, offset in its file, length, as one int."""
    return segment << SEGMENT_SHIFT | offset << LENGTH_BITS | length


def unpack_place(place: int) -> tuple[int, int, int]:
    """Segment number, offset and length of a place."""
    return place >> SEGMENT_SHIFT, place >> LENGTH_BITS & _OFFSET_MASK, place & LENGTH_MASK


class Index(Protocol):
    """Keys to places of their newest committed records.

    One thread calls everything but `move` and `places_in`; another may call those and `get` at the same time.
    """

    @property
    def applied(self) -> int:
        """The log index up to which it holds everything, surviving a restart; 0 for one that lives in memory."""
        ...

    def put(self, keys: Sequence[bytes], places: Iterable[int], applied: int) -> None:
        """As `apply`, where no key is deleted: in columns, as most are."""
        ...

    def apply(self, changes: Mapping[bytes, int | None], applied: int) -> None:
        """Take new places (None: the key is deleted), which bring it up to log index `applied`."""
        ...

    def get(self, key: bytes) -> int | None:
        """The place of a key's newest record, or None."""
        ...

    def places_in(self, segments: Collection[int]) -> list[int] | None:
        """The places of this moment that are in these segments, in any order; None if they can't be told at once."""
        ...

    def move(self, places: Iterable[tuple[bytes, int]], segments: Collection[int]) -> None:
        """A compaction moved records: a key that is still found in one of these segments has this place now."""
        ...

    def keys(self) -> list[bytes]:
        """All keys of this moment, in any order, as a list of its own."""
        ...

    def clear(self) -> None:
        """Forget everything."""
        ...

    def __len__(self) -> int:
        """How many keys there are."""
        ...
