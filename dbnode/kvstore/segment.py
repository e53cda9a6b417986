"""One file of the log: a header, then batches one after the other.

Version 1 is a segment as it was written, with a header of 24 bytes; version 2 is the output of a compaction; version 3 was
written like version 1, into a file that held another segment before (`kvstore.spares`).
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
    check_batch,
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
END: Final = bytes(BATCH_HEADER_BYTES)
"""Behind the last batch of a recycled segment, where the older one's bytes would be: no batch begins like that."""
_MARK_EVERY: Final = 64 << 10
_CHUNK: Final = 256 << 10
_LIKELY: Final = 512  # bytes of which most records are no longer

# What the header of a real batch looks like from its version on: version 1, no flags, and an epoch and indexes below
# 2**48. It only makes the search fast (bytes at its beginning are found faster than a pattern); each candidate's checksum decides.
_LIKE_A_HEADER = re.compile(rb"(?s)\x01\x00(?=(?:.{6}\x00\x00){3})")
_VERSION_AT: Final = 8  # in a batch's header
_COMMIT: Final = struct.Struct("<Q")
_COMMIT_AT: Final = 38


def segment_name(first_index: int) -> str:
    """The file name of the segment whose first batch begins at an index: 20 digits, so names sort as indexes do."""
    return f"{first_index:020d}{SUFFIX}"


def segment_header(first_index: int) -> bytes:
    """The first bytes of a segment that is going to be written."""
    return _with_crc(_UNCHECKED.pack(MAGIC, WRITTEN, 0, first_index))


def recycled_header(first_index: int) -> bytes:
    """The first bytes of a segment that is going to be written into the file of another."""
    return _with_crc(_UNCHECKED.pack(MAGIC, RECYCLED, 0, first_index))


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
    `recycled`: behind its end there may be what the file held before.
    """

    first: int
    clean_to: int
    length: int
    recycled: bool


def read_segment_header(data: bytes, path: Path) -> SegmentHeader:
    """The header that `data` begins with. Raises CorruptionError, FormatVersionError."""
    if len(data) < HEADER_BYTES:
        raise CorruptionError(str(path), 0, f"{len(data)} bytes where the header alone has {HEADER_BYTES}")
    magic, version, flags, first, crc = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise CorruptionError(str(path), 0, f"starts with {magic!r} instead of {MAGIC!r}")
    _check_crc(data, HEADER_BYTES, crc, path)
    if version > RECYCLED:
        raise FormatVersionError(str(path), version, RECYCLED)
    length, clean_to = HEADER_BYTES, 0
    if version == COMPACTED:
        length = COMPACTED_HEADER_BYTES
        if len(data) < length:
            raise CorruptionError(str(path), 0, f"{len(data)} bytes where the header alone has {length}")
        clean_to, crc = _CLEAN_TO.unpack_from(data, HEADER_BYTES)
        _check_crc(data, length, crc, path)
    impossible = flags or not version or (version == COMPACTED and not clean_to)
    if impossible or not first or path.name != segment_name(first):
        raise CorruptionError(str(path), 8, f"an impossible header: version {version}, flags {flags}, first {first}")
    return SegmentHeader(first, clean_to, length, recycled=version == RECYCLED)


def _check_crc(data: bytes, length: int, crc: int, path: Path) -> None:
    if crc32c(data[: length - 4]) != crc:
        raise CorruptionError(str(path), length - 4, "wrong checksum of the segment's header")


def committed_behind(data: bytes, offset: int, index: int) -> bool:
    """Whether a whole, valid batch behind `offset` says that `index` had been committed when it was made.

    Batches of one flush may reach the disk in any order, so a later batch alone doesn't show that an earlier one was
    ever durable; that it was committed does.
    """
    for match in _LIKE_A_HEADER.finditer(data, offset + 1 + _VERSION_AT):
        at = match.start() - _VERSION_AT
        if len(data) - at < BATCH_HEADER_BYTES or _COMMIT.unpack_from(data, at + _COMMIT_AT)[0] < index:
            continue
        try:
            if check_batch(data, at).commit >= index:
                return True
        except CorruptionError:
            continue
    return False


@dataclass(slots=True, eq=False)
class Segment:
    """An open segment. `size` counts what was written; `number` names it in packed places, in this run only.

    `start` is where its batches begin, `clean_to` as in its header: above 0 it is a compaction's output, which is
    complete, and nothing is appended to it. `allocated`: where the bytes behind `size` end that are on the disk already, if there
    are any: zeros, or if it is `recycled` what the file held before.

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
    recycled: bool = False

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
