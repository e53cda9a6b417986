"""From what lies on the disk to a log again: every checksum verified, a torn tail cut, all else refused by name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kvstore.batch import check_batch, check_records
from kvstore.errors import CorruptionError
from kvstore.files import Files
from kvstore.log import Log, LogBatch
from kvstore.segment import HEADER_BYTES, SUFFIX, Segment, committed_behind, read_segment_header


class Visitor(Protocol):
    """Is shown every valid batch, in order."""

    def __call__(self, batch: LogBatch, highest_version: int) -> None:
        """A batch, which knows its place, and the highest version in it."""
        ...


@dataclass(slots=True)
class _Tail:
    """What was cut off the end, or will be."""

    last: int = 0
    torn: int = 0


def recover(files: Files, directory: Path, segment_bytes: int, visit: Visitor) -> tuple[Log, int]:
    """The directory's log, synced (rule 3), and the bytes of torn tail that were cut off it.

    A bad batch in the last segment is a write that a crash tore, with all that was written behind it, unless a batch
    behind it says that it had been committed. Raises CorruptionError for any other damage, FormatVersionError; nothing
    has been changed then. OSError.
    """
    names = [n for n in files.list(directory) if n.endswith(SUFFIX)]
    tail = _Tail()
    segments: list[Segment] = []
    try:
        for number, name in enumerate(names):
            is_last = number == len(names) - 1
            segment = _open_segment(files, directory / name, number)
            segments.append(segment)
            if is_last and _is_torn_birth(segment):
                tail.torn = segment.file.size()
                segment.size = 0
                break
            _scan(segment, tail, visit, is_last=is_last)
        return _repair(files, directory, segment_bytes, segments), tail.torn
    except BaseException:
        for segment in segments:
            segment.file.close()
        raise


def _open_segment(files: Files, path: Path, number: int) -> Segment:
    file = files.open(path)
    return Segment(number, 0, path, file, file.size())


def _is_torn_birth(segment: Segment) -> bool:
    """Whether a crash came before the segment's header was on the disk; nothing can have been written behind it."""
    if segment.size > HEADER_BYTES:
        return False
    try:
        read_segment_header(segment.file.pread(HEADER_BYTES, 0), segment.path)
    except CorruptionError:
        return True
    return False


def _scan(segment: Segment, tail: _Tail, visit: Visitor, *, is_last: bool) -> None:
    """Verify a whole segment. What is torn is left out of `segment.size`."""
    data = segment.file.pread(segment.size, 0)
    name = str(segment.path)
    if len(data) != segment.size:
        raise CorruptionError(name, len(data), f"the file ends here, {segment.size - len(data)} bytes early")
    segment.first, gap = read_segment_header(data, segment.path)
    if segment.first != tail.last + 1 and not (gap and segment.first > tail.last):
        raise CorruptionError(name, 0, f"begins at index {segment.first}, but the log before it ends at {tail.last}")
    offset, expected = HEADER_BYTES, segment.first
    while offset < len(data):
        try:
            header = check_batch(data, offset, file=name)
        except CorruptionError:
            if not is_last or committed_behind(data, offset, expected):
                raise
            tail.torn = len(data) - offset
            segment.size = offset
            return
        if header.first != expected:
            raise CorruptionError(name, offset, f"a batch from index {header.first} where {expected} must follow")
        highest = check_records(data, header, offset, file=name)
        segment.note(header.first, offset)
        end = offset + header.length
        visit(LogBatch(header, data[offset:end], segment=segment.number, offset=offset), highest)
        offset = end
        tail.last = header.last
        expected = header.last + 1
    if not is_last and offset == HEADER_BYTES:
        raise CorruptionError(name, offset, "a segment without batches before the last one")


def _repair(files: Files, directory: Path, segment_bytes: int, segments: list[Segment]) -> Log:
    """Cut what is torn, then make sure that what is left is on the disk."""
    if segments and segments[-1].size <= HEADER_BYTES:
        # Nothing in it: the next batch begins a segment of its own, with a gap before it or not.
        segment = segments.pop()
        segment.file.close()
        files.remove(segment.path)
    elif segments and segments[-1].size < segments[-1].file.size():
        segments[-1].file.truncate(segments[-1].size)
    log = Log(files, directory, segment_bytes, segments)
    log.sync()
    return log
