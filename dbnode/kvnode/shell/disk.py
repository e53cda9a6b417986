"""The log's writer: batches are queued on the event loop, written and synced in groups on one thread."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from kvnode.core.types import Batch, Position
from kvstore.store import Store


class Disk:
    """Feeds a store's `flush`; one is under way at most, and takes all that was appended before it began."""

    def __init__(
        self,
        store: Store,
        executor: Executor,
        *,
        written: Callable[[Position], None],
        failed: Callable[[str], None],
    ) -> None:
        self._store = store
        self._executor = executor
        self._written, self._failed = written, failed
        self._flushing: asyncio.Future[object] | None = None
        self._broken = False

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
        loop = asyncio.get_running_loop()
        self._flushing = loop.run_in_executor(self._executor, self._store.flush)
        self._flushing.add_done_callback(self._flushed)

    def _flushed(self, future: asyncio.Future[object]) -> None:
        self._flushing = None
        if future.cancelled():
            return
        error = future.exception()
        if error is not None:
            self._fail(error)
            return
        durable = self._store.durable
        if self._store.end.index > durable.index:
            self._flush()
        self._written(Position(durable.epoch, durable.index))

    def _fail(self, error: BaseException) -> None:
        self._broken = True
        self._failed(f"{type(error).__name__}: {error}")

    async def close(self) -> None:
        """Wait for the flush that is under way."""
        while self._flushing is not None:
            await asyncio.wait([self._flushing])
