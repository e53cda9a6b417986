"""Which records of a sealed segment still count: the others were superseded by committed ones (rule 15)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kvstore.batch import HEADER_BYTES, MAX_INDEX, RECORD_BYTES, BatchHeader, RecordType, unpack_record
from kvstore.index.base import LENGTH_BITS

_PUT, _DELETE, _SESSION = int(RecordType.PUT), int(RecordType.DELETE), int(RecordType.SESSION)


class Kept(NamedTuple):
    """A record that counts: its type, its key, and where in its batch it begins and ends."""

    kind: int
    key: bytes
    at: int
    end: int


@dataclass(slots=True)
class Sieve:
    """Judges by what is applied while it looks: `found` is the index's `get`, `remembers` asks the table of sessions.

    A delete counts while its key has no value, unless `deletes` knows a newer one of the key (by place), or it may be
    purged: its index is at most `purge_to` and its version below `purge_before`. Records are shown in the order of the
    log, all of them applied. No delete beyond `clean_to` is purged, for what it deletes may be before these segments.

    `purged_to` is the highest index of a delete that was purged; `blocked`: bytes of deletes that only `clean_to` kept.
    """

    found: Callable[[bytes], int | None]
    remembers: Callable[[bytes], bool]
    deletes: Mapping[bytes, int] = field(default_factory=dict)
    purge_to: int = 0
    purge_before: int = 0
    purged_to: int = 0
    clean_to: int = MAX_INDEX
    blocked: int = 0

    def kept(self, header: BatchHeader, data: bytes, place: int) -> list[Kept]:
        """What counts of a batch, whose own packed place is `place` (with length 0)."""
        found, at = self.found, HEADER_BYTES
        kept: list[Kept] = []
        for _ in range(header.count):
            _, kind, key_length, value_length, index, version = unpack_record(data, at)
            key_at = at + RECORD_BYTES
            value_at = key_at + key_length
            end = value_at + value_length
            key = data[key_at:value_at]
            if kind == _PUT:
                counts = found(key) == place + (at << LENGTH_BITS) + end - at
            elif kind == _DELETE:
                counts = found(key) is None and self._delete_counts(key, place + (at << LENGTH_BITS), index, version)
            else:
                counts = kind != _SESSION or self.remembers(key)
            if counts:
                kept.append(Kept(kind, key, at, end))
            at = end
        return kept

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
