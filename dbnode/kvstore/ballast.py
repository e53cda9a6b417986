"""Room that is kept back on the disk: a write that finds none otherwise gives it up, and is done all the same.

From then on the disk counts as full (`short`), though nothing has failed: what was begun ends well, reads go on, and who
owns the store is to begin no more writes until there is room again.
"""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import structlog

from kvstore.files import Files, is_full

BALLAST: Final = "ballast"

log = structlog.get_logger()
P = ParamSpec("P")
T = TypeVar("T")


class Ballast:
    """One file in a store's directory that takes room and means nothing. Any thread may call."""

    def __init__(self, files: Files, directory: Path, size: int) -> None:
        """Takes nothing yet. `size` in bytes; 0: there is none, and the disk is never short."""
        self._files, self._path, self._size = files, directory / BALLAST, size
        self._changing = threading.Lock()
        self._held = False

    @property
    def short(self) -> bool:
        """Whether the room is not kept back, as it was needed, or as there was not enough of it yet."""
        return self._size > 0 and not self._held

    def hold(self) -> None:
        """Keep the room back, if it is still kept back since the last run, or if there is as much once more beside it."""
        if not self.short:
            return
        with self._changing:
            try:
                if self._is_there() or self._files.free_bytes(self._path.parent) >= 2 * self._size:
                    self._files.allocate(self._path, self._size)
                    self._held = True
            except OSError as e:
                if not is_full(e):  # it will not be otherwise later: a full disk then fails a write
                    log.warning("no room can be kept back on this disk", file=str(self._path), error=str(e))
                    self._size = 0

    def _is_there(self) -> bool:
        try:
            file = self._files.open(self._path)
        except FileNotFoundError:
            return False
        try:
            return file.size() >= self._size
        finally:
            file.close()

    def write(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do something that writes and can be begun again; once more without the ballast if there is no room with it.

        Raises what it raises, and no room only once all of it is used.
        """
        held = self._held
        try:
            return work(*args, **kwargs)
        except OSError as e:
            if not held or not is_full(e):
                raise
            self._give_up()
            return work(*args, **kwargs)

    def _give_up(self) -> None:
        with self._changing:
            if not self._held:
                return  # another thread's write needed it, too
            log.warning("the disk is full: the room that was kept back is used now", file=str(self._path))
            with contextlib.suppress(FileNotFoundError):
                self._files.remove(self._path)
            self._files.sync_directory(self._path.parent)
            self._held = False  # not before: whose write fails meanwhile is to wait here
