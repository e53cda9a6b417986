"""Syncs by the kernel itself: Linux's AIO (io_submit(2), through caio), which wakes the event loop when a file is on the disk.

A thread that waits for a sync costs two wake-ups and Python's lock each way, half as much again as a fast disk's sync.
"""

import asyncio
import errno
import os
import select
from collections.abc import Callable
from functools import partial

from kvstore.files import File, SyncError

Done = Callable[[BaseException | None], None]
_REFUSED = (SystemError, RuntimeError, ValueError, OverflowError)  # what caio makes of the kernel's error numbers
_SIGN, _RANGE = 1 << 63, 1 << 64


class KernelSync:
    """One sync at a time."""

    def __init__(self) -> None:
        """For the running event loop. Raises OSError where there is no such thing, or it is forbidden, or used up (fs.aio-max-nr)."""
        try:
            from caio.linux_aio import Context, Operation
        except ImportError as e:
            raise OSError(errno.ENOSYS, str(e)) from e
        self._operation = Operation
        try:
            self._context = Context(max_requests=1)
        except _REFUSED as e:
            raise OSError(errno.ENOSYS, str(e)) from e
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._context.fileno, self._ready)
        self._under_way = False

    def begin(self, file: File, done: Done) -> None:
        """Sync what was written; `done` is called on the event loop, with a SyncError or None. Raises OSError if it can't be begun."""
        operation = self._operation.fdsync(file.fileno())
        operation.set_callback(partial(self._done, done))
        try:
            begun = self._context.submit(operation)
        except _REFUSED as e:
            raise OSError(errno.EINVAL, str(e)) from e
        if not begun:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self._under_way = True

    def _done(self, done: Done, result: int) -> None:
        self._under_way = False
        code = _RANGE - result if result >= _SIGN else 0  # it comes as a number without sign
        done(SyncError(code, os.strerror(code)) if code else None)

    def _ready(self) -> None:
        try:
            self._context.poll()
        except BlockingIOError:  # `finish` was here first
            return
        self._context.process_events(max_requests=1)

    def finish(self) -> None:
        """Wait for the sync under way, if there is one; its `done` was called when this returns."""
        ready = select.poll()
        ready.register(self._context.fileno, select.POLLIN)
        while self._under_way:
            ready.poll()
            self._ready()

    def close(self) -> None:
        """Nothing more will come."""
        self._loop.remove_reader(self._context.fileno)
