"""From what lies on the disk to a log again.

Verified is all that a crash may have torn: the last segment, and every segment without a hint. Of a sealed segment
with a hint the header, the size and the hint are; its records when they are read (docs/storage-format.md, "A start").
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog

from kvstore.ballast import Ballast
from kvstore.batch import check_batch, check_records
from kvstore.errors import CorruptionError, FormatVersionError
from kvstore.files import Files, unreadable_is_damaged
from kvstore.hint import Hint, read_hint
from kvstore.log import Log, LogBatch
from kvstore.segment import (
    HEADER_BYTES,
    LONGEST_HEADER_BYTES,
    SUFFIX,
    Segment,
    committed_behind,
    read_segment_header,
)
from kvstore.spares import Spares

log = structlog.get_logger()


class Visitor(Protocol):
    """Is shown the whole log, in order."""

    @property
    def known_commit(self) -> int:
        """What is known to be committed by what was shown."""
        ...

    def visit_batch(self, batch: LogBatch, highest_version: int) -> None:
        """A valid batch, which knows its place, and the highest version in it."""
        ...

    def visit_segment(self, segment: Segment, hint: Hint) -> None:
        """A sealed segment that was not read, and its hint."""
        ...


@dataclass(slots=True)
class Recovered:
    """The log, `torn` bytes that were cut off its end, and the numbers of the segments that have a hint."""

    log: Log
    torn: int
    hinted: tuple[int, ...]


@dataclass(slots=True)
class _Recovery:
    files: Files
    directory: Path
    visitor: Visitor
    segments: list[Segment] = field(default_factory=list)
    leftovers: list[Path] = field(default_factory=list)  # sources of a compaction whose output is there
    hinted: list[int] = field(default_factory=list)
    last: int = 0  # index up to which the log was read
    torn: int = 0

    def read(self) -> None:
        names = [n for n in self.files.list(self.directory) if n.endswith(SUFFIX)]
        for number, name in enumerate(names):
            segment = self._open(self.directory / name, number)
            self.segments.append(segment)
            with unreadable_is_damaged(segment.path):
                self._add(segment, is_last=number == len(names) - 1)

    def _open(self, path: Path, number: int) -> Segment:
        file = self.files.open(path)
        return Segment(number, 0, path, file, file.size())

    def _add(self, segment: Segment, *, is_last: bool) -> None:
        if is_last and _is_torn_birth(segment):
            self.torn, segment.size = segment.size, 0
        elif self._is_leftover(segment):
            self.leftovers.append(segment.path)
            self.segments.pop().file.close()
        else:
            self._take(segment, is_last=is_last)

    def _is_leftover(self, segment: Segment) -> bool:
        """Whether the compaction's output before this segment stands for it. Its content doesn't matter then."""
        if len(self.segments) == 1 or not self.segments[-2].clean_to:
            return False
        name = segment.path.name.removesuffix(SUFFIX)
        return name.isdecimal() and int(name) <= self.last

    def _take(self, segment: Segment, *, is_last: bool) -> None:
        header = read_segment_header(segment.file.pread(LONGEST_HEADER_BYTES, 0), segment.path)
        segment.first, segment.clean_to, segment.start = header.first, header.clean_to, header.length
        segment.used, segment.size = header.used, header.own(segment.size)
        if segment.first != self.last + 1:
            what = f"begins at index {segment.first}, but the log before it ends at {self.last}"
            raise CorruptionError(str(segment.path), 0, what)
        may_be_torn = is_last and not segment.clean_to
        hint = None if may_be_torn else self._hint(segment)
        if hint is None:
            self._scan(segment, may_be_torn=may_be_torn)
        else:
            segment.marks = list(hint.marks)
            self.visitor.visit_segment(segment, hint)
            self.hinted.append(segment.number)
            self.last = hint.last

    def _hint(self, segment: Segment) -> Hint | None:
        try:
            hint = read_hint(self.files, segment.path)
        except (CorruptionError, FormatVersionError) as e:
            log.warning("hint ignored, its segment is read instead", error=str(e))
            return None
        return hint if hint is not None and hint.is_of(segment) else None

    def _scan(self, segment: Segment, *, may_be_torn: bool) -> None:
        """Verify a whole segment. What is torn, and zeros behind its end, are left out of `segment.size`."""
        data = segment.file.pread(segment.size, 0)
        name = str(segment.path)
        if len(data) != segment.size:
            raise CorruptionError(name, len(data), f"the file ends here, {segment.size - len(data)} bytes early")
        offset, expected = segment.start, segment.first
        while offset < len(data):
            try:
                header = check_batch(data, offset, file=name)
                if segment.recycled and header.last < segment.first:
                    raise CorruptionError(name, offset, f"a batch up to {header.last} of the file's older segment")
            except CorruptionError:
                torn = len(data[offset:].rstrip(b"\0"))  # zeros were there before anything was written
                committed = self.visitor.known_commit >= expected or committed_behind(data, offset, expected)
                if not may_be_torn or committed:
                    raise
                self.torn, segment.size = torn, offset
                return
            if header.first != expected:
                raise CorruptionError(name, offset, f"a batch from index {header.first} where {expected} must follow")
            highest = check_records(data, header, offset, file=name)
            segment.note(header.first, offset)
            end = offset + header.length
            batch = LogBatch(header, data[offset:end], segment=segment.number, offset=offset)
            self.visitor.visit_batch(batch, highest)
            offset = end
            self.last = header.last
            expected = header.last + 1
        if not may_be_torn and offset == segment.start:
            raise CorruptionError(name, offset, "a segment without batches before the last one")

    def repair(self, segment_bytes: int, preallocate_bytes: int, ballast: Ballast | None, spares: Spares | None) -> Log:
        """Cut what is torn, remove what is left over, then make sure that what is left is on the disk."""
        for path in self.leftovers:
            self.files.remove(path)
        segments = self.segments
        if segments and segments[-1].size <= segments[-1].start:
            segment = segments.pop()
            segment.file.close()
            self.files.remove(segment.path)
        elif segments and segments[-1].size < segments[-1].file.size():
            segments[-1].file.truncate(segments[-1].size)
        files, directory = self.files, self.directory
        log = Log(
            files,
            directory,
            segment_bytes,
            segments,
            preallocate_bytes=preallocate_bytes,
            ballast=ballast,
            spares=spares,
        )
        log.sync()
        return log


def recover(
    files: Files,
    directory: Path,
    segment_bytes: int,
    visitor: Visitor,
    *,
    preallocate_bytes: int = 0,
    ballast: Ballast | None = None,
    spares: Spares | None = None,
) -> Recovered:
    """The directory's log, synced (rule 3).

    A bad batch in the last segment is a write that a crash tore, with all that was written behind it, unless it is
    known to have been committed. Raises CorruptionError for any other damage, FormatVersionError; nothing has been
    changed then. OSError.
    """
    recovery = _Recovery(files, directory, visitor)
    try:
        recovery.read()
        found = recovery.repair(segment_bytes, preallocate_bytes, ballast, spares)
        return Recovered(found, recovery.torn, tuple(recovery.hinted))
    except BaseException:
        for segment in recovery.segments:
            segment.file.close()
        raise


def _is_torn_birth(segment: Segment) -> bool:
    """Whether a crash came before the segment's header was on the disk; nothing can have been written behind it."""
    if segment.size > HEADER_BYTES:
        return False
    try:
        read_segment_header(segment.file.pread(HEADER_BYTES, 0), segment.path)
    except CorruptionError:
        return True
    return False
