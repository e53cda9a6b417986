"""Files of segments that compaction replaced, kept for segments to come, as PostgreSQL recycles those of its log.

A sync of bytes in place waits for no change of a file's size or blocks; and the memory behind the file is there already.
"""

import contextlib
import threading
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from kvstore.files import File, Files
from kvstore.segment import Segment

SUFFIX: Final = ".spare"


class _Spare(NamedTuple):
    """A file's second name, and the file as the segment has it open: whoever reads that holds it."""

    path: Path
    segment: "weakref.ref[File]"


class Spares:
    """At most `most` files, while `least_free` bytes are free beside them. Any thread may call."""

    def __init__(self, files: Files, directory: Path, *, most: int, segment_bytes: int, least_free: int) -> None:
        self._files, self._directory = files, directory
        self._most, self._segment_bytes, self._least_free = most, segment_bytes, least_free
        self._changing = threading.Lock()
        self._spares: list[_Spare] = []

    def keep(self, segments: Iterable[Segment]) -> None:
        """Give files of segments that are to be removed a second name, as many as are wanted.

        That is all if they stay after all: a file that somebody has open is not taken.
        """
        with self._changing, contextlib.suppress(OSError):  # then there are fewer
            for segment in segments if self._has_room() else ():
                if len(self._spares) >= self._most:
                    break
                if self._segment_bytes // 2 <= segment.size <= self._segment_bytes:  # less would soon have to grow
                    path = segment.path.with_suffix(SUFFIX)
                    self._files.link(segment.path, path)
                    self._spares.append(_Spare(path, weakref.ref(segment.file)))

    def take(self, path: Path, header: bytes, *, sync: bool) -> File | None:
        """One that nobody reads any more, under the name `path`; its header is on the disk first, if `sync`.

        None if there is none. The caller syncs the directory. Raises OSError.
        """
        name = self._pop()
        if name is None:
            return None
        try:
            file = self._files.open(name)
            file.write(header, 0)
            if sync:
                file.sync()
            self._files.rename(name, path)
        except OSError:
            with contextlib.suppress(OSError):
                self._files.remove(name)
            raise
        return file

    def _pop(self) -> Path | None:
        with self._changing:
            for at, spare in enumerate(self._spares):
                if spare.segment() is None:
                    return self._spares.pop(at).path
        return None

    def trim(self) -> None:
        """Let go of all of them when the disk gets short of room. Raises OSError."""
        if self._spares and not self._has_room():
            self.drop()

    def drop(self) -> None:
        """Let go of all of them. Raises OSError."""
        with self._changing:
            while self._spares:
                with contextlib.suppress(FileNotFoundError):
                    self._files.remove(self._spares.pop().path)

    def _has_room(self) -> bool:
        return self._files.free_bytes(self._directory) >= self._least_free
