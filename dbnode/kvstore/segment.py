"""One file of the log: a header, then batches one after the other.

Version 1 is a segment as it was written, with a header of 24 bytes; version 2 is the output of a compaction; version 3 was
written like version 1, into the file of an older one (`kvstore.spares`), and says itself how much of the file is its own.
"""

import re
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from kvstore.batch import HEADER_BYTES as BATCH_HEADER_BYTES
from kvstore.batch import (
    RECORD_BYTES,
    BatchHeader,
    Record,
    check_crc,
    decode_record,
    read_header,
    unpack_record,
)
from kvstore.checksum import crc32c
from kvstore.errors import CorruptionError, FormatVersionError
from kvstore.files import File

WRITTEN: Final = 1  # format version of a segment as it was written
COMPACTED: Final = 2  # format version of a compaction's output
RECYCLED: Final = 3  # format version of a segment that was written into the file of another, older one
MAGIC: Final = b"KVC-LOG\n"
SUFFIX: Final = ".log"
_HEADER = struct.Struct("<8sHHQI")  # magic, format version, flags, first index, crc of what is before it
HEADER_BYTES: Final = _HEADER.size
_UNCHECKED = struct.Struct("<8sHHQ")
_CLEAN_TO = struct.Struct("<QI")  # behind it in version 2: `clean_to`, crc of all before it
COMPACTED_HEADER_BYTES: Final = _HEADER.size + _CLEAN_TO.size
_USED = struct.Struct("<QI")  # behind it in version 3, twice: `used`, crc of the first index and that
_USED_CHECKED = struct.Struct("<QQ")
RECYCLED_HEADER_BYTES: Final = _HEADER.size + 2 * _USED.size
LONGEST_HEADER_BYTES: Final = max(COMPACTED_HEADER_BYTES, RECYCLED_HEADER_BYTES)
_MARK_EVERY: Final = 64 << 10
_CHUNK: Final = 256 << 10
_LIKELY: Final = 512  # bytes of which most records are no longer

# What the header of a real batch looks like from its version on: version 1, no flags, and an epoch and indexes below
# 2**48. It only makes the search fast (bytes at its beginning are found faster than a pattern); each candidate's checksum decides.
_LIKE_A_HEADER = re.compile(rb"(?s)\x01\x00(?=(?:.{6}\x00\x00){3})")
_VERSION_AT: Final = 8  # in a batch's header


def segment_name(first_index: int) -> str:
    """The file name of the segment whose first batch begins at an index: 20 digits, so names sort as indexes do."""
    return f"{first_index:020d}{SUFFIX}"


def segment_header(first_index: int) -> bytes:
    """The first bytes of a segment that is going to be written."""
    return _with_crc(_UNCHECKED.pack(MAGIC, WRITTEN, 0, first_index))


def recycled_header(first_index: int) -> bytes:
    """The first bytes of a segment that is going to be written into the file of an older one; nothing else is its own yet."""
    used = used_part(first_index, RECYCLED_HEADER_BYTES)
    return _with_crc(_UNCHECKED.pack(MAGIC, RECYCLED, 0, first_index)) + used + used


def used_part(first_index: int, used: int) -> bytes:
    """One of the two places in a recycled segment's header that say how many bytes of the file are its own."""
    return _USED.pack(used, crc32c(_USED_CHECKED.pack(first_index, used)))


def compacted_header(first_index: int, clean_to: int) -> bytes:
    """The first bytes of a compaction's output; see `SegmentHeader.clean_to`."""
    head = _with_crc(_UNCHECKED.pack(MAGIC, COMPACTED, 0, first_index))  # where every version has it
    return _with_crc(head + struct.pack("<Q", clean_to))


def _with_crc(head: bytes) -> bytes:
    return head + struct.pack("<I", crc32c(head))


class Stretch(NamedTuple):
    """A part of a segment, of whole batches: the first one's first index, and the offsets where they begin and end."""

    first: int
    offset: int
    end: int


class SegmentHeader(NamedTuple):
    """What a segment says at its start. `length`: bytes until the first batch.

    `clean_to`: what records up to this index superseded is gone from the segment; 0 for one that was never compacted.
    `used`: of a recycled segment, what both places in the header say of it: bytes of the file that are its own, behind which is what
    the file held before; 0: that place is torn, or damaged.
    """

    first: int
    clean_to: int
    length: int
    used: tuple[int, int] | None = None

    def own(self, size: int) -> int:
        """How many bytes of the segment's file, of that size, may be its own; all of them while a place says nothing."""
        return min(size, max(self.used)) if self.used is not None and all(self.used) else size


def read_segment_header(data: bytes, path: Path) -> SegmentHeader:
    """The header that `data` begins with. Raises CorruptionError, FormatVersionError."""
    _check_length(data, HEADER_BYTES, path)
    magic, version, flags, first, crc = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise CorruptionError(str(path), 0, f"starts with {magic!r} instead of {MAGIC!r}")
    _check_crc(data, HEADER_BYTES, crc, path)
    if version > RECYCLED:
        raise FormatVersionError(str(path), version, RECYCLED)
    length, clean_to, used = HEADER_BYTES, 0, None
    if version == COMPACTED:
        length = COMPACTED_HEADER_BYTES
        _check_length(data, length, path)
        clean_to, crc = _CLEAN_TO.unpack_from(data, HEADER_BYTES)
        _check_crc(data, length, crc, path)
    impossible = flags or not version or (version == COMPACTED and not clean_to)
    if impossible or not first or path.name != segment_name(first):
        raise CorruptionError(str(path), 8, f"an impossible header: version {version}, flags {flags}, first {first}")
    if version == RECYCLED:
        length = RECYCLED_HEADER_BYTES
        _check_length(data, length, path)
        used = _used(data, first, HEADER_BYTES), _used(data, first, HEADER_BYTES + _USED.size)
        if not any(used):
            raise CorruptionError(str(path), HEADER_BYTES, "neither place says how much of the file is the segment's")
    return SegmentHeader(first, clean_to, length, used)


def _used(data: bytes, first: int, offset: int) -> int:
    used, crc = _USED.unpack_from(data, offset)
    return int(used) if crc == crc32c(_USED_CHECKED.pack(first, used)) else 0


def _check_length(data: bytes, length: int, path: Path) -> None:
    if len(data) < length:
        raise CorruptionError(str(path), 0, f"{len(data)} bytes where the header alone has {length}")


def _check_crc(data: bytes, length: int, crc: int, path: Path) -> None:
    if crc32c(data[: length - 4]) != crc:
        raise CorruptionError(str(path), length - 4, "wrong checksum of the segment's header")


def committed_behind(data: bytes, offset: int, index: int) -> bool:
    """Whether a whole, valid batch behind `offset`, where `index` should be, says that it had been committed when it was made.

    Batches of one flush may reach the disk in any order, so a later batch alone doesn't show that an earlier one was
    ever durable; that it was committed does. Each index takes a record's bytes at least: what looks like a batch of indexes
    further on than there is room for is some value's content.
    """
    for match in _LIKE_A_HEADER.finditer(data, offset + 1 + _VERSION_AT):
        at = match.start() - _VERSION_AT
        try:
            header = read_header(data, at)
            if header.commit >= index and header.first - index <= (at - offset) // RECORD_BYTES:
                check_crc(data, header, at)
                return True
        except CorruptionError:
            continue
    return False


@dataclass(slots=True, eq=False)
class Segment:
    """An open segment. `size` counts what was written; `number` names it in packed places, in this run only.

    `start` is where its batches begin, `clean_to` as in its header: above 0 it is a compaction's output, which is
    complete, and nothing is appended to it. `allocated`: where the zeros behind `size` end, if there are any. `used` is that of its
    header, which counts if it is recycled: bytes of the file that are its own.

    One thread appends (size, marks), others read at the same time: a mark is one tuple, so a reader sees it or not.
    """

    number: int
    first: int
    path: Path
    file: File
    size: int
    marks: list[tuple[int, int]] = field(default_factory=list)  # (a batch's first index, its offset), every 64 KiB
    start: int = HEADER_BYTES
    clean_to: int = 0
    allocated: int = 0
    used: tuple[int, int] | None = None

    @property
    def recycled(self) -> bool:
        """Whether it was written into the file of an older segment."""
        return self.used is not None

    def use(self) -> None:
        """Say in the file that all which is allocated is the segment's own, if it doesn't yet. Raises OSError.

        In the place that says less: should this write be torn, the other one holds, for what is on the disk without it.
        """
        if self.used is None or self.allocated <= max(self.used):
            return
        less = self.used.index(min(self.used))
        self.file.write(used_part(self.first, self.allocated), HEADER_BYTES + less * _USED.size)
        self.used = (self.allocated, self.used[1]) if less == 0 else (self.used[0], self.allocated)

    def note(self, first: int, offset: int) -> None:
        """Remember, now and then, where a batch is."""
        if not self.marks or offset - self.marks[-1][1] >= _MARK_EVERY:
            self.marks.append((first, offset))

    def forget_from(self, offset: int) -> None:
        """Drop the marks at or behind an offset that is being cut."""
        while self.marks and self.marks[-1][1] >= offset:
            self.marks.pop()

    def seek(self, index: int) -> int:
        """The offset of a batch at or before the one with `index`."""
        at = bisect_right(self.marks, (index, 1 << 62)) - 1
        return self.marks[at][1] if at >= 0 else self.start

    def batches(self, index: int) -> Iterator[tuple[BatchHeader, int, bytes]]:
        """(header, offset, bytes) of batches, from one at or before `index` on; each is verified.

        Raises CorruptionError, OSError.
        """
        return self.batches_between(self.seek(index), self.size)

    def stretches(self) -> Sequence[Stretch]:
        """All of it: each begins at a mark, so all but those of a single batch are somewhat above 64 KiB."""
        starts = [(self.first, self.start), *(mark for mark in self.marks if mark[1] > self.start)]
        ends = [*(offset for _, offset in starts[1:]), self.size]
        return [Stretch(first, offset, end) for (first, offset), end in zip(starts, ends, strict=True)]

    def record(self, offset: int) -> tuple[Record, bytes]:
        """The record at an offset, which is one's beginning, and its bytes; verified. Raises CorruptionError, OSError."""
        data = self.file.pread(min(_LIKELY, self.size - offset), offset)
        if len(data) >= RECORD_BYTES:
            _, _, key_length, value_length, _, _ = unpack_record(data)
            length = RECORD_BYTES + key_length + value_length
            data = data[:length] if len(data) >= length else self.file.pread(min(length, self.size - offset), offset)
        return decode_record(data, file=str(self.path), base=offset), data

    def batches_between(self, offset: int, end: int) -> Iterator[tuple[BatchHeader, int, bytes]]:
        """As `batches`, from one that begins at an offset to one that ends at another."""
        name, chunk, base = str(self.path), b"", offset
        while offset < end:
            at = offset - base
            if len(chunk) - at < BATCH_HEADER_BYTES:
                chunk, base, at = self.file.pread(min(_CHUNK, end - offset), offset), offset, 0
            header = read_header(chunk, at, file=name, base=base)
            if header.length > len(chunk) - at:
                wanted = min(max(_CHUNK, header.length), end - offset)
                chunk, base, at = self.file.pread(wanted, offset), offset, 0
                header = read_header(chunk, at, file=name, base=base)  # of the bytes that are verified
            check_crc(chunk, header, at, file=name, base=base)
            yield header, offset, chunk[at : at + header.length]
            offset += header.length
