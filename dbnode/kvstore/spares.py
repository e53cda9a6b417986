"""Files of segments that compaction replaced, kept for segments to come, as PostgreSQL recycles those of its log.

A sync of bytes in place waits for no change of a file's size or blocks; and the memory behind the file is there already.
"""

import contextlib
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from kvstore.files import File, Files
from kvstore.segment import Segment

SUFFIX: Final = ".spare"
_FREE: Final = 16  # segments' worth of room that must be free beside the spares: nobody is to miss what they take


class Spare(NamedTuple):
    """A file's second name, and the file as it was open last: whoever still reads the segment has it."""

    path: Path
    last: "weakref.ref[File]"


class Spares:
    """At most `most` files. One thread keeps and adds, another takes."""

    def __init__(self, files: Files, directory: Path, *, most: int, segment_bytes: int) -> None:
        self._files, self._directory = files, directory
        self._most, self._segment_bytes = most, segment_bytes
        self._spares: deque[Spare] = deque()

    def keep(self, segments: Iterable[Segment]) -> list[Spare]:
        """Give files of segments that are about to be removed another name, as many as are wanted: to be added once the segments are."""
        kept: list[Spare] = []
        for segment in segments:
            if len(self._spares) + len(kept) >= self._most or not self._has_room():
                break
            if self._segment_bytes // 2 <= segment.size <= self._segment_bytes:  # a shorter one would soon have to grow
                path = segment.path.with_suffix(SUFFIX)
                with contextlib.suppress(OSError):  # then there is one less
                    self._files.link(segment.path, path)
                    kept.append(Spare(path, weakref.ref(segment.file)))
        return kept

    def add(self, spares: Sequence[Spare]) -> None:
        """Their segments are gone: each may be taken once nobody reads it any more."""
        self._spares.extend(spares)

    def take(self) -> tuple[Path, File] | None:
        """One that nobody else has, opened; the caller gives it a name. Raises OSError."""
        for spare in tuple(self._spares):
            if spare.last() is None:
                self._spares.remove(spare)
                with contextlib.suppress(FileNotFoundError):
                    return spare.path, self._files.open(spare.path)
        return None

    def trim(self) -> None:
        """Let go of all of them when the disk gets short of room. Raises OSError."""
        if self._spares and not self._has_room():
            self.drop()

    def drop(self) -> None:
        """Let go of all of them. Raises OSError."""
        while self._spares:
            with contextlib.suppress(IndexError, FileNotFoundError):  # one may be taken meanwhile
                self._files.remove(self._spares.popleft().path)

    def _has_room(self) -> bool:
        return self._files.free_bytes(self._directory) >= _FREE * self._segment_bytes
