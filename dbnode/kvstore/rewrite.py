"""The output of a compaction: one segment, written beside the log, with what counts of its sources."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from kvstore.batch import HEADER_BYTES, BatchHeader, seal_batch
from kvstore.files import File
from kvstore.hint import HintBuilder
from kvstore.segment import Segment, compacted_header
from kvstore.sieve import Kept

BATCH_BYTES: Final = 64 << 10
_WRITE_BYTES: Final = 256 << 10
_SYNC_BYTES: Final = 4 << 20  # in portions, so that the log's own syncs don't wait for a large one


@dataclass(slots=True)
class _Joined:
    """Batches of one epoch that become one."""

    header: BatchHeader  # of the first
    last: int = 0
    count: int = 0
    size: int = 0
    body: list[bytes] = field(default_factory=list)


class Rewriter:
    """Writes a segment batch by batch. The ranges of its batches adjoin, whatever went from inside them.

    Records keep their bytes; small batches of an epoch become one of BATCH_BYTES; each epoch has a batch at least.
    """

    def __init__(self, segment: Segment) -> None:
        """`segment` is new, its file empty."""
        self.segment = segment
        self.hint = HintBuilder()
        self._file: File = segment.file
        self._open: _Joined | None = None
        self._unwritten = [compacted_header(segment.first, segment.clean_to)]
        self._unwritten_bytes = len(self._unwritten[0])
        self._unsynced = 0
        segment.start = segment.size = self._unwritten_bytes

    def add(self, header: BatchHeader, kept: Sequence[Kept], highest_version: int) -> None:
        """A source's next batch, and what counts of it. Raises OSError."""
        self.hint.batch(header, highest_version)
        joined, size = self._open, sum(len(record.data) for record in kept)
        if joined is None or joined.header.epoch != header.epoch or 0 < joined.size > BATCH_BYTES - size:
            self._seal()
            joined = self._open = _Joined(header)
            self.segment.note(header.first, self.segment.size)
        joined.last = header.last
        for record in kept:
            self.hint.record(record, self.segment.size + HEADER_BYTES + joined.size)
            joined.body.append(record.data)
            joined.size += len(record.data)
        joined.count += len(kept)

    def _seal(self) -> None:
        joined, self._open = self._open, None
        if joined is None:
            return
        first = joined.header.first
        batch = seal_batch(
            epoch=joined.header.epoch,
            first=first,
            last=joined.last,
            commit=first - 1,  # all of it was committed when it was read
            count=joined.count,
            body=b"".join(joined.body),
        )
        self._unwritten.append(batch)
        self._unwritten_bytes += len(batch)
        self.segment.size += len(batch)
        if self._unwritten_bytes >= _WRITE_BYTES:
            self._write()

    def _write(self) -> None:
        self._file.write(b"".join(self._unwritten), self.segment.size - self._unwritten_bytes)
        self._unsynced += self._unwritten_bytes
        self._unwritten, self._unwritten_bytes = [], 0
        if self._unsynced >= _SYNC_BYTES:
            self._file.sync()
            self._unsynced = 0

    def finish(self) -> None:
        """All is on the disk when this returns. Raises OSError."""
        self._seal()
        self._write()
        self._file.sync()
