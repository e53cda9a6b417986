"""The log: segments in a directory, written at the end, read anywhere, cut at a batch's end.

The last segment has zeros behind its end, on the disk, into which the next batches are written: a sync of bytes in
place waits for no change of the file's size, which a file system puts through its journal, one file after the other.
A large write leaves none: it would have the disk write twice as much, and waits for one change of size among many bytes.
Where there is a spare file (`kvstore.spares`) a segment is written into that, so that large writes change bytes in place, too.

Nothing here is decided twice: an OSError means that the caller must stop using the log (rule 4).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from kvstore.ballast import Ballast
from kvstore.batch import BatchHeader, Record, RecordType, batch_behind, decode_record
from kvstore.errors import BatchBoundaryError, CorruptionError
from kvstore.files import Files, SyncError, is_full
from kvstore.index.base import MAX_OFFSET, unpack_place
from kvstore.segment import (
    HEADER_BYTES,
    RECYCLED_HEADER_BYTES,
    Segment,
    recycled_header,
    segment_header,
    segment_name,
)
from kvstore.spares import Spares

log = structlog.get_logger()

MAX_SEGMENT_BYTES: Final = MAX_OFFSET
_LARGE_WRITE: Final = 64 << 10
_PUT: Final = int(RecordType.PUT)  # a plain number is compared faster


@dataclass(slots=True, eq=False)
class LogBatch:
    """A batch on its way into the log. `segment` and `offset` say where it is, once it is written."""

    header: BatchHeader
    data: bytes
    segment: int = -1
    offset: int = -1


@dataclass(frozen=True, slots=True)
class Unsynced:
    """A segment behind whose end something was written that is not synced yet; `size`: where it ends then."""

    segment: Segment
    size: int

    def settle(self) -> None:
        """It was synced: it belongs to the segment now."""
        self.segment.size = self.size


class Log:
    """The segments of one directory. One thread writes (`write`), others may `read` and `pread` what was written."""

    def __init__(
        self,
        files: Files,
        directory: Path,
        segment_bytes: int,
        segments: Sequence[Segment] = (),
        *,
        preallocate_bytes: int = 0,
        ballast: Ballast | None = None,
        spares: Spares | None = None,
    ) -> None:
        """`preallocate_bytes`: zeros that are written behind the end, each time that those before are used up.

        `ballast` is given up before a write of batches fails for want of room. `spares`: files for new segments.
        """
        if not HEADER_BYTES < segment_bytes <= MAX_SEGMENT_BYTES:
            msg = f"segment_bytes is {segment_bytes}; it must be above {HEADER_BYTES} and at most {MAX_SEGMENT_BYTES}"
            raise ValueError(msg)
        self._files = files
        self._directory = directory
        self._limit = segment_bytes
        self._ahead = preallocate_bytes
        self._ballast = ballast or Ballast(files, directory, 0)
        self._spares = spares or Spares(files, directory, most=0, segment_bytes=segment_bytes, least_free=0)
        self._segments = tuple(segments)  # ascending; replaced, never changed, so that readers need no lock
        self._by_number = {s.number: s for s in segments}
        self._next_number = max(self._by_number, default=-1) + 1

    @property
    def size(self) -> int:
        """Size of all segments."""
        return sum(s.size for s in self._segments)

    @property
    def segment_count(self) -> int:
        """How many segments there are."""
        return len(self._segments)

    def write(self, batches: Sequence[LogBatch], *, sync: bool) -> None:
        """Append batches, in as few writes as segments allow, and tell each where it is; durable if `sync`."""
        segment = self._segments[-1] if self._segments else None
        parts: list[bytes] = []
        size = segment.size if segment else 0
        for batch in batches:
            full = segment is not None and size > segment.start and size + len(batch.data) > self._limit
            if segment is None or full or segment.clean_to:
                self._append(segment, parts, size, sync=sync)
                segment, parts = self._roll(batch, sync=sync), []
                size = segment.size
            size = _place(batch, segment, size)
            parts.append(batch.data)
        self._append(segment, parts, size, sync=sync)

    def write_ahead(self, batches: Sequence[LogBatch]) -> Unsynced | None:
        """Put batches into zeros that are there, in one write, and tell each where it is; the caller syncs and settles it.

        None if they are many, or don't fit: nothing was done. Raises OSError.
        """
        segment = self._segments[-1] if self._segments else None
        length = sum([len(batch.data) for batch in batches])
        if segment is None or not length or length >= _LARGE_WRITE or segment.size + length > segment.allocated:
            return None
        size = segment.size
        for batch in batches:
            size = _place(batch, segment, size)
        self._ballast.write(segment.file.write, b"".join([batch.data for batch in batches]), segment.size)
        return Unsynced(segment, size)

    def _append(self, segment: Segment | None, parts: list[bytes], size: int, *, sync: bool) -> None:
        if segment is None or not parts:
            return
        self._ballast.write(segment.file.write, parts[0] if len(parts) == 1 else b"".join(parts), segment.size)
        if size > segment.allocated and (sync or segment.recycled):
            self._allocate(segment, size)
        if sync:
            segment.file.sync()
        segment.size = size

    def _allocate(self, segment: Segment, size: int) -> None:
        """Write zeros behind what was written; a disk without room for them may have room for the log all the same."""
        segment.allocated, ahead = size, min(self._ahead, self._limit - size)
        if ahead > 0 and size - segment.size < _LARGE_WRITE:
            try:
                segment.file.write(bytes(ahead), size)
            except OSError as e:
                if not is_full(e):
                    raise
                segment.file.truncate(size)  # what there was room for: the log needs it more, and `seal` knows of none
            else:
                segment.allocated += ahead
        self._ballast.write(segment.use)

    def seal(self, *, sync: bool) -> None:
        """Let the last segment end where its batches end: nothing will be written to it for a while, or any more."""
        segment = self._segments[-1] if self._segments else None
        if segment is not None and (segment.allocated > segment.size or segment.recycled):
            segment.file.truncate(segment.size)
            if sync:
                segment.file.sync()
            segment.allocated = segment.size

    def _roll(self, batch: LogBatch, *, sync: bool) -> Segment:
        """A new segment, which is on the disk before anything is written to it."""
        self.seal(sync=sync)
        first = batch.header.first
        path = self._directory / segment_name(first)
        segment = self._recycled(first, path, sync=sync) or self._created(first, path, sync=sync)
        self._by_number[segment.number] = segment
        self._segments = (*self._segments, segment)
        return segment

    def _created(self, first: int, path: Path, *, sync: bool) -> Segment:
        file = self._ballast.write(self._files.open, path, create=True)
        self._ballast.write(file.write, segment_header(first), 0)
        if sync:
            file.sync()
            self._files.sync_directory(self._directory)
        return Segment(self.new_number(), first, path, file, HEADER_BYTES)

    def _recycled(self, first: int, path: Path, *, sync: bool) -> Segment | None:
        """A segment in a spare file, which has its header before it has its name; None if there is no such file, or it can't be had."""
        try:
            file = self._spares.take(path, recycled_header(first), sync=sync)
        except SyncError:
            raise
        except OSError as e:
            log.warning("a new segment has a new file, as a spare one can't be used", segment=str(path), error=str(e))
            return None
        if file is None:
            return None
        if sync:
            self._files.sync_directory(self._directory)
        start = RECYCLED_HEADER_BYTES
        return Segment(self.new_number(), first, path, file, start, start=start, used=(start, start))

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Ascending. Any thread may ask."""
        return self._segments

    def new_number(self) -> int:
        """A number for a segment, never given before in this run."""
        self._next_number += 1
        return self._next_number - 1

    def replace(self, sources: Sequence[Segment], output: Segment) -> None:
        """Let a compaction's output stand for its sources, which follow each other; `retire` them afterwards.

        Until then records are found by the places in the sources, too.
        """
        at = self._segments.index(sources[0])
        self._by_number[output.number] = output
        self._segments = (*self._segments[:at], output, *self._segments[at + len(sources) :])

    def retire(self, sources: Sequence[Segment]) -> None:
        """Forget segments that were replaced. Whoever reads one at the moment keeps its file open until done."""
        for segment in sources:
            del self._by_number[segment.number]

    def pread(self, segment: int, offset: int, length: int) -> bytes:
        """Bytes of a segment, by its number. Raises OSError."""
        return self._by_number[segment].file.pread(length, offset)

    def name(self, segment: int) -> str:
        """The path of a segment, for messages."""
        return str(self._by_number[segment].path)

    def value(self, place: int, key: bytes) -> Record:
        """The record of a key's value at a packed place. Raises CorruptionError if it isn't there, OSError.

        Raises KeyError if its segment was compacted away: the index has another place by now.
        """
        number, offset, length = unpack_place(place)
        segment = self._by_number[number]
        data = segment.file.pread(length, offset)
        try:
            record = decode_record(data)
        except CorruptionError as e:
            raise CorruptionError(str(segment.path), offset, e.what) from e
        if record[1] != key or record[0] != _PUT:
            raise CorruptionError(str(segment.path), offset, f"the record here is not the one of key {key!r}")
        return record

    def read(self, after_index: int, max_bytes: int, horizon: int = 0) -> bytes:
        """Whole batches behind `after_index`, at least one if there is one, then up to `max_bytes`; verified.

        Compaction joins batches: of one that `after_index` is inside of, at or below `horizon`, the rest is given.
        Raises BatchBoundaryError if `after_index` is inside another batch, CorruptionError, OSError.
        """
        parts: list[bytes] = []
        size = 0
        for segment in self._from(after_index + 1):
            for header, _, data in segment.batches(after_index + 1):
                if header.last <= after_index:
                    continue
                if parts and size + len(data) > max_bytes:
                    return b"".join(parts)
                rest = data
                if header.first <= after_index and header.last <= horizon:
                    rest = batch_behind(data, after_index)
                else:
                    _check_boundary(header, after_index)
                parts.append(rest)
                size += len(rest)
        return b"".join(parts)

    def _from(self, index: int) -> tuple[Segment, ...]:
        """The segments from the one that may hold `index` on."""
        segments = self._segments
        at = max((i for i, s in enumerate(segments) if s.first <= index), default=0)
        return segments[at:]

    def find_end(self, after_index: int) -> tuple[BatchHeader, int] | None:
        """The batch whose last index is `after_index`, and the offset behind it; None for 0.

        Raises BatchBoundaryError, CorruptionError, OSError.
        """
        if not after_index:
            return None
        for segment in self._from(after_index)[:1]:
            for header, offset, _ in segment.batches(after_index):
                if header.last >= after_index:
                    _check_boundary(header, after_index)
                    if header.last == after_index:
                        return header, offset + header.length
        msg = f"no batch of the log ends at index {after_index}"
        raise BatchBoundaryError(msg)

    def cut(self, after_index: int) -> BatchHeader | None:
        """Remove everything behind `after_index`, durably; the header of the batch that is now the last.

        Newest first, each step synced, so that a crash on the way leaves a shorter log and no hole. Raises
        BatchBoundaryError before anything is touched; CorruptionError, OSError.
        """
        found = self.find_end(after_index)
        while self._segments and self._segments[-1].first > after_index:
            self._remove_last()
        if not found or not self._segments:
            return None
        header, end = found
        segment = self._segments[-1]
        if segment.size > end:
            segment.file.truncate(end)
            segment.file.sync()
            segment.forget_from(end)
            segment.size = segment.allocated = end
        return header

    def _remove_last(self) -> None:
        segment = self._segments[-1]
        self._segments = self._segments[:-1]
        del self._by_number[segment.number]
        segment.file.close()
        self._files.remove(segment.path)
        self._files.sync_directory(self._directory)

    def sync(self) -> None:
        """Return once every segment and the directory are on the disk."""
        for segment in self._segments:
            segment.file.sync()
        self._files.sync_directory(self._directory)

    def close(self) -> None:
        """Let go of the files."""
        for segment in self._segments:
            segment.file.close()
        self._segments = ()
        self._by_number = {}


def _place(batch: LogBatch, segment: Segment, offset: int) -> int:
    """Say that a batch is there; the offset behind it."""
    batch.segment, batch.offset = segment.number, offset
    segment.note(batch.header.first, offset)
    return offset + len(batch.data)


def _check_boundary(header: BatchHeader, after_index: int) -> None:
    if header.first <= after_index < header.last:
        msg = (
            f"index {after_index} is inside the batch {header.first}..{header.last}; "
            "logs part and meet at the ends of batches only"
        )
        raise BatchBoundaryError(msg)
