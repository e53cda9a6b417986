"""Hint files: what a start needs to know of a sealed segment, without reading it.

A hint is derived from its segment and may be missing, damaged or of another version at any time: then the segment is
read instead. It lists the records that counted when it was made, which is right for an index that holds everything
up to `as_of` (basho/bitcask's hint files hold all; ours grow with keys, not with history).
"""

import struct
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final

from kvstore.batch import RECORD_BYTES, BatchHeader, RecordType, unpack_record
from kvstore.errors import CorruptionError
from kvstore.files import Files, read_file, replace_file
from kvstore.index.base import LENGTH_BITS, MAX_OFFSET
from kvstore.meta import EpochStart
from kvstore.sealed import HEADER_BYTES, seal, unseal
from kvstore.segment import Segment
from kvstore.sessions import KEY_BYTES as SESSION_KEY_BYTES
from kvstore.sieve import Kept

SUFFIX: Final = ".hint"
_MAGIC: Final = b"KVC-HINT"
_FIXED = struct.Struct("<QQQQQQIIIII")
_ROW = struct.Struct("<QQ")
_PLACE_BYTES: Final = 8
_LENGTH_BYTES: Final = 2
_PUT, _DELETE, _SESSION = int(RecordType.PUT), int(RecordType.DELETE), int(RecordType.SESSION)


@dataclass(frozen=True, slots=True)
class Hint:
    """What a hint file says. `first`, `last`, `size` and `clean_to` are its segment's, and say which one it is of.

    `as_of`: committed when it was made. `names` are the keys one after the other, of these `lengths`; `places` are
    theirs in the segment, packed without its number, of length 0 for a delete. `sessions`: SESSION records as they are
    in the log, in its order.
    """

    first: int
    last: int
    size: int
    clean_to: int
    as_of: int
    highest_version: int
    epochs: Sequence[EpochStart]
    marks: Sequence[tuple[int, int]]
    lengths: "array[int]"
    places: "array[int]"
    names: bytes
    sessions: bytes

    def keys(self) -> list[bytes]:
        """The keys, in the order of the log."""
        lengths, names = self.lengths, self.names
        if lengths and lengths[0] and lengths.count(lengths[0]) == len(lengths):  # of one length: three times as fast
            return [key for (key,) in struct.iter_unpack(f"{lengths[0]}s", names)]
        return [names[start:end] for start, end in pairwise(accumulate(lengths, initial=0))]

    def is_of(self, segment: Segment) -> bool:
        """Whether it is this segment's."""
        return (self.first, self.size, self.clean_to) == (segment.first, segment.size, segment.clean_to)


@dataclass(slots=True)
class HintBuilder:
    """Gathers a hint, batch by batch."""

    epochs: list[EpochStart] = field(default_factory=list)
    last: int = 0
    highest_version: int = 0
    lengths: "array[int]" = field(default_factory=lambda: array("H"))
    places: "array[int]" = field(default_factory=lambda: array("Q"))
    names: bytearray = field(default_factory=bytearray)
    sessions: bytearray = field(default_factory=bytearray)

    def batch(self, header: BatchHeader, highest_version: int) -> None:
        """A batch of the segment; its records follow."""
        if not self.epochs or self.epochs[-1][0] != header.epoch:
            self.epochs.append((header.epoch, header.first))
        self.last = header.last
        self.highest_version = max(self.highest_version, highest_version)

    def record(self, kept: Kept, offset: int) -> None:
        """A record that counts, which begins in the hint's segment at an offset."""
        kind, key, data, _ = kept
        if kind in (_PUT, _DELETE):
            self.lengths.append(len(key))
            self.places.append(offset << LENGTH_BITS | (len(data) if kind == _PUT else 0))
            self.names += key
        elif kind == _SESSION:
            self.sessions += data

    def build(self, segment: Segment, as_of: int) -> Hint:
        """The hint of a segment whose batches were all shown."""
        return Hint(
            segment.first,
            self.last,
            segment.size,
            segment.clean_to,
            as_of,
            self.highest_version,
            self.epochs,
            segment.marks,
            self.lengths,
            self.places,
            bytes(self.names),
            bytes(self.sessions),
        )


def hint_path(segment: Path) -> Path:
    """The hint file of a segment file."""
    return segment.with_suffix(SUFFIX)


def encode_hint(hint: Hint) -> bytes:
    """A hint file's bytes."""
    counts = (len(hint.epochs), len(hint.marks), len(hint.places), len(hint.names), len(hint.sessions))
    numbers = (hint.first, hint.last, hint.size, hint.clean_to, hint.as_of, hint.highest_version)
    parts = [_FIXED.pack(*numbers, *counts)]
    parts += [_ROW.pack(*row) for row in (*hint.epochs, *hint.marks)]
    parts += [_little_endian(hint.places).tobytes(), _little_endian(hint.lengths).tobytes()]
    return seal(_MAGIC, b"".join([*parts, hint.names, hint.sessions]))


def _little_endian(numbers: "array[int]") -> "array[int]":
    """The same for a file, or from one."""
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers


def decode_hint(data: bytes, path: Path) -> Hint:
    """A hint from a file's bytes. Raises FormatVersionError, CorruptionError."""
    content = unseal(_MAGIC, data, path)
    if len(content) < _FIXED.size:
        raise CorruptionError(
            str(path), HEADER_BYTES, f"{len(content)} bytes of content; at least {_FIXED.size} must be"
        )
    first, last, size, clean_to, as_of, highest, epochs, marks, keys, names, sessions = _FIXED.unpack_from(content)
    places_at = _FIXED.size + _ROW.size * (epochs + marks)
    lengths_at = places_at + _PLACE_BYTES * keys
    names_at = lengths_at + _LENGTH_BYTES * keys
    sessions_at = names_at + names
    if sessions_at + sessions != len(content):
        what = f"{len(content)} bytes of content where {sessions_at + sessions} must be"
        raise CorruptionError(str(path), HEADER_BYTES, what)
    rows = list(_ROW.iter_unpack(content[_FIXED.size : places_at]))
    hint = Hint(
        first,
        last,
        size,
        clean_to,
        as_of,
        highest,
        epochs=rows[:epochs],
        marks=rows[epochs:],
        lengths=_little_endian(array("H", content[lengths_at:names_at])),
        places=_little_endian(array("Q", content[places_at:lengths_at])),
        names=content[names_at:sessions_at],
        sessions=content[sessions_at:],
    )
    _check(hint, path)
    return hint


def _check(hint: Hint, path: Path) -> None:
    """Numbers that no hint of ours has are refused; the checksum has caught damage already."""
    ascending = all(a < c and b < d for (a, b), (c, d) in pairwise(hint.epochs))
    spans = bool(hint.epochs) and 0 < hint.first == hint.epochs[0][1] <= hint.epochs[-1][1] <= hint.last <= hint.as_of
    farthest = max([*hint.places, *(offset << LENGTH_BITS for _, offset in hint.marks)], default=0)
    inside = (farthest >> LENGTH_BITS) < hint.size <= MAX_OFFSET
    if not (ascending and spans and inside) or sum(hint.lengths) != len(hint.names):
        what = (
            f"an impossible hint: indexes {hint.first}..{hint.last}, as of {hint.as_of}, segment of {hint.size} bytes"
        )
        raise CorruptionError(str(path), HEADER_BYTES, what)
    at, data = 0, hint.sessions
    while at < len(data):
        rest = len(data) - at - RECORD_BYTES
        _, kind, key, value, _, _ = unpack_record(data, at) if rest >= 0 else (0,) * 6
        if kind != _SESSION or key != SESSION_KEY_BYTES or key + value > rest:
            raise CorruptionError(str(path), HEADER_BYTES, f"no session record at {at} of {len(data)} bytes of them")
        at += RECORD_BYTES + key + value


def read_hint(files: Files, segment: Path) -> Hint | None:
    """The hint of a segment file; None if there is none. Raises CorruptionError, FormatVersionError, OSError."""
    path = hint_path(segment)
    data = read_file(files, path)
    return None if data is None else decode_hint(data, path)


def write_hint(files: Files, segment: Path, hint: Hint) -> None:
    """Durable when it returns. Raises OSError."""
    replace_file(files, hint_path(segment), encode_hint(hint))
