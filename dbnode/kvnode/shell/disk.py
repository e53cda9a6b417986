"""The log's writer: batches are queued on the event loop, written and synced in groups on a thread of its own.

The thread is fed by a SimpleQueue and answers by `call_soon_threadsafe`: an executor's futures cost as much again as
the rest of a small write.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue

from kvnode.core.types import Batch, Position
from kvstore.store import Store


class Disk:
    """Feeds a store's `flush`; one is under way at most, and takes all that was appended before it began."""

    def __init__(
        self,
        store: Store,
        *,
        written: Callable[[Position], None],
        failed: Callable[[str], None],
    ) -> None:
        self._store = store
        self._written, self._failed = written, failed
        self._wanted: SimpleQueue[bool] = SimpleQueue()  # True: flush; False: end
        self._flushing: asyncio.Future[None] | None = None
        self._broken = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def write(self, batch: Batch, *, trusted: bool) -> None:
        """Append a batch; `written` is called when it is durable. `trusted`: this process made it."""
        if self._broken:
            return
        try:
            self._store.append(batch.data, trusted=trusted)
        except Exception as e:
            self._fail(e)
            return
        if self._flushing is None:
            self._flush()

    def _flush(self) -> None:
        self._flushing = self._loop.create_future()
        self._wanted.put(True)

    def _work(self) -> None:
        """The thread: one flush for each wish."""
        while self._wanted.get():
            error: BaseException | None = None
            try:
                self._store.flush()
            except BaseException as e:
                error = e
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._flushed, error)

    def _flushed(self, error: BaseException | None) -> None:
        flushing, self._flushing = self._flushing, None
        if error is not None:
            self._fail(error)
        else:
            durable = self._store.durable
            if self._store.end.index > durable.index:
                self._flush()
            self._written(Position(durable.epoch, durable.index))
        if flushing is not None and not flushing.done():
            flushing.set_result(None)

    def _fail(self, error: BaseException) -> None:
        self._broken = True
        self._failed(f"{type(error).__name__}: {error}")

    async def close(self) -> None:
        """Wait for the flush that is under way, and end the thread."""
        while self._flushing is not None:
            await asyncio.wait([self._flushing])
        self._wanted.put(False)
