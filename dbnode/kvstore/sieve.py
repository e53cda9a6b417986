"""Which records of a sealed segment still count: the others were superseded by committed ones (rule 15)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kvstore.batch import BYTES, HEADER_BYTES, MAX_INDEX, RECORD_BYTES, BatchHeader, Record, RecordType, unpack_record
from kvstore.errors import CorruptionError
from kvstore.index.base import LENGTH_BITS, unpack_place

_PUT, _DELETE, _SESSION = int(RecordType.PUT), int(RecordType.DELETE), int(RecordType.SESSION)


class Kept(NamedTuple):
    """A record that counts: its type, its key, its bytes."""

    kind: int
    key: bytes
    data: bytes
    offset: int
    """Where in its segment it begins."""


@dataclass(slots=True)
class Sieve:
    """Judges by what is applied while it looks: `found` is the index's `get`, `remembers` asks the table of sessions.

    A delete counts while its key has no value, unless `deletes` knows a newer one of the key (by place), or it may be
    purged: its index is at most `purge_to` and its version below `purge_before`. Records are shown in the order of the
    log, all of them applied. No delete beyond `clean_to` is purged, for what it deletes may be before these segments.

    `purged_to` is the highest index of a delete that was purged; `blocked`: bytes of deletes that only `clean_to` kept;
    `met_deletes`: whether there were any.
    """

    found: Callable[[bytes], int | None]
    remembers: Callable[[bytes], bool]
    deletes: Mapping[bytes, int] = field(default_factory=dict)
    purge_to: int = 0
    purge_before: int = 0
    purged_to: int = 0
    clean_to: int = MAX_INDEX
    blocked: int = 0
    met_deletes: bool = False

    def sift(
        self, header: BatchHeader, data: bytes, place: int, *, file: str = BYTES, base: int = 0
    ) -> tuple[list[Kept], int]:
        """What counts of a batch, whose own packed place is `place` (with length 0), and its highest version.

        The records are checked on the way as `kvstore.batch.check_records` does; `file` and `base` are for its errors.
        Raises CorruptionError.
        """
        found, last, at, stop = self.found, header.last, HEADER_BYTES, header.length
        previous, highest, offset = header.first - 1, 0, unpack_place(place)[1]
        kept: list[Kept] = []
        for _ in range(header.count):
            if stop - at < RECORD_BYTES:
                raise CorruptionError(file, base + at, f"{stop - at} bytes where a record's header has {RECORD_BYTES}")
            _, kind, key_length, value_length, index, version = unpack_record(data, at)
            if not 1 <= kind <= 4 or not previous < index <= last:
                raise CorruptionError(file, base + at, f"a record of type {kind} and index {index} behind {previous}")
            key_at = at + RECORD_BYTES
            value_at = key_at + key_length
            end = value_at + value_length
            if kind == _PUT:
                if found(data[key_at:value_at]) == place + (at << LENGTH_BITS) + end - at:
                    kept.append(Kept(kind, data[key_at:value_at], data[at:end], offset + at))
            elif self._counts(kind, data[key_at:value_at], place + (at << LENGTH_BITS), index, version):
                kept.append(Kept(kind, data[key_at:value_at], data[at:end], offset + at))
            at, previous = end, index
            if version > highest:  # noqa: PLR1730  # max() costs as much as the rest of the loop
                highest = version
        if at != stop:
            raise CorruptionError(file, base + at, f"the records end at {base + at}, the batch at {base + stop}")
        return kept, highest

    def pick(self, record: Record, data: bytes, place: int) -> Kept | None:
        """A record and its bytes, at a packed place (with length 0), if it counts as in `sift`."""
        kind, key, _, version, index = record
        if kind == _PUT:
            counts = self.found(key) == place + len(data)
        else:
            counts = self._counts(kind, key, place, index, version)
        return Kept(kind, key, data, unpack_place(place)[1]) if counts else None

    def _counts(self, kind: int, key: bytes, place: int, index: int, version: int) -> bool:
        """Whether a record that is no PUT counts."""
        if kind == _DELETE:
            self.met_deletes = True
            return self.found(key) is None and self._delete_counts(key, place, index, version)
        return kind != _SESSION or self.remembers(key)

    def _delete_counts(self, key: bytes, place: int, index: int, version: int) -> bool:
        if self.deletes.get(key, place) != place:
            return False
        if index > self.purge_to or version >= self.purge_before:
            return True
        if index > self.clean_to:
            self.blocked += RECORD_BYTES + len(key)
            return True
        self.purged_to = max(self.purged_to, index)
        return False
