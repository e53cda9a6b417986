"""The log's writer: batches are queued on the event loop, and written and synced in groups."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

from kvnode.core.types import Batch, Position
from kvstore.store import Store

Work = Callable[[], object]
Done = Callable[[BaseException | None], None]


class Worker(Protocol):
    """Does one piece of work after the other. The simulation has its own."""

    def begin(self, work: Work, done: Done) -> None:
        """Do the work; `done` is called on the event loop with what it raised, or None."""
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...


class LogWriter:
    """Writes the log on a thread of its own."""

    def __init__(self, took: Callable[[float], None] | None = None) -> None:
        """`took` is told how many seconds each write took, on the thread."""
        self._took = took
        self._loop = asyncio.get_running_loop()
        self._wanted: SimpleQueue[tuple[Work, Done] | None] = SimpleQueue()  # an executor's futures cost as much again
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def begin(self, work: Work, done: Done) -> None:
        """When this turn of the loop is over: what it sends is on its way then, and the thread need not wait for Python's lock."""
        self._loop.call_soon(self._wanted.put, (work, done))

    def close(self) -> None:
        self._wanted.put(None)

    def _run(self) -> None:
        while (wanted := self._wanted.get()) is not None:
            work, done = wanted
            error: BaseException | None = None
            began = time.perf_counter()
            try:
                work()
            except BaseException as e:
                error = e
            if self._took is not None and error is None:
                self._took(time.perf_counter() - began)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(done, error)


class Disk:
    """Feeds a store's `flush`; one is under way at most, and takes all that was appended before it began."""

    def __init__(
        self,
        store: Store,
        *,
        written: Callable[[Position], None],
        failed: Callable[[str], None],
        worker: Worker | None = None,
        took: Callable[[float], None] | None = None,
    ) -> None:
        """`worker`: who flushes; a LogWriter unless one is given. `took` is told how many seconds each flush took."""
        self._store = store
        self._written, self._failed = written, failed
        self._worker = worker or LogWriter(took)
        self._flushing: asyncio.Future[None] | None = None
        self._began = 0.0  # the flush under way, on the event loop's clock
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

    @property
    def busy(self) -> bool:
        """Whether the thread is at work: what is written now waits for it."""
        return self._flushing is not None

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        self._flushing, self._began = loop.create_future(), loop.time()
        self._worker.begin(self._store.flush, self._flushed)

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

    @property
    def waiting(self) -> float:
        """Seconds that the flush under way has taken so far; 0 when there is none."""
        return asyncio.get_running_loop().time() - self._began if self._flushing is not None else 0.0

    async def close(self) -> None:
        """Wait for the flush that is under way, and let the worker go."""
        while self._flushing is not None:
            await asyncio.wait([self._flushing])
        self._worker.close()
