"""The log's writer: batches are queued on the event loop, and written and synced in groups."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

import structlog

from kvnode.core.types import Batch, Position
from kvnode.shell.kernel_sync import Done, KernelSync
from kvstore.errors import StoreError
from kvstore.files import File
from kvstore.store import Store

Work = Callable[[], object]

log = structlog.get_logger()


class Worker(Protocol):
    """Does one piece of work after the other. The simulation has its own."""

    @property
    def syncs(self) -> bool:
        """Whether it can `sync`."""
        ...

    def begin(self, work: Work, done: Done) -> None:
        """Do the work; `done` is called on the event loop with what it raised, or None."""
        ...

    def sync(self, file: File, done: Done) -> None:
        """Have what was written to a file on the disk, without a thread that waits; `done` as of `begin`."""
        ...

    def finish(self) -> None:
        """Wait for the sync under way, if there is one; its `done` was called when this returns."""
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...


class LogWriter:
    """Writes the log on a thread of its own; syncs by the kernel, where that can be."""

    def __init__(self) -> None:
        self._kernel: KernelSync | None = None
        try:
            self._kernel = KernelSync()
        except OSError as e:
            log.info("the log is synced by a thread: the kernel's AIO is not there", error=str(e))
        self._loop = asyncio.get_running_loop()
        self._wanted: SimpleQueue[tuple[Work, Done] | None] = SimpleQueue()  # an executor's futures cost as much again
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def begin(self, work: Work, done: Done) -> None:
        self._wanted.put((work, done))

    @property
    def syncs(self) -> bool:
        return self._kernel is not None

    def sync(self, file: File, done: Done) -> None:
        assert self._kernel is not None
        try:
            self._kernel.begin(file, done)
        except OSError as e:  # this once on the event loop; by the thread from now on
            log.warning("the log is synced by a thread: the kernel's AIO failed", error=str(e))
            self._give_up()
            done(_error_of(file.sync))

    def _give_up(self) -> None:
        kernel, self._kernel = self._kernel, None
        if kernel is not None:
            kernel.close()

    def finish(self) -> None:
        if self._kernel is not None:
            self._kernel.finish()

    def close(self) -> None:
        self._wanted.put(None)
        self._give_up()

    def _run(self) -> None:
        while (wanted := self._wanted.get()) is not None:
            work, done = wanted
            error = _error_of(work)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(done, error)


def _error_of(work: Work) -> BaseException | None:
    """What the work raised."""
    try:
        work()
    except BaseException as e:
        return e
    return None


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
        """`worker`: who flushes; a LogWriter unless one is given. `took` is told how many seconds each flush took, until the event loop heard of it."""
        self._store = store
        self._written, self._failed = written, failed
        self._worker = worker or LogWriter()
        self._took = took
        self.appended = False
        """Whether anything was appended that `begin` has not begun to write."""
        self._flushing: asyncio.Future[None] | None = None
        self._began = 0.0  # the flush under way, on the event loop's clock
        self._finishing = False
        self._broken = False

    def write(self, batch: Batch, *, trusted: bool) -> None:
        """Append a batch, which `begin` then writes; `written` is called when it is durable. `trusted`: this process made it."""
        if self._broken:
            return
        try:
            self._store.append(batch.data, trusted=trusted)
        except Exception as e:
            self._fail(e)
            return
        self.appended = True

    @property
    def busy(self) -> bool:
        """Whether a flush is under way: what is written now waits for it."""
        return self._flushing is not None

    def begin(self) -> None:
        """Write and sync what was appended, if there is any and no flush is under way; that goes on by itself then.

        Little is written here and synced by the kernel; for the rest, and where the kernel doesn't, there is the thread: when this
        turn of the loop is over, as it would have to wait for Python's lock.
        """
        if not self.appended or self._flushing is not None or self._broken:
            return
        loop = asyncio.get_running_loop()
        self._flushing, self._began, self.appended = loop.create_future(), loop.time(), False
        try:
            file = self._store.write_ahead() if self._worker.syncs else None
        except StoreError as e:
            self._flushed(e)
            return
        if file is None:
            loop.call_soon(self._worker.begin, self._store.flush, self._flushed)
        else:
            self._worker.sync(file, self._synced)

    def _synced(self, error: BaseException | None) -> None:
        try:
            self._store.synced(error)
        except StoreError as e:
            error = e
        if self._finishing:
            asyncio.get_running_loop().call_soon(self._flushed, error)
        else:
            self._flushed(error)

    def finish(self) -> None:
        """Before the log is cut: wait for the sync under way. That it ended is told later, as of then."""
        self._finishing = True
        try:
            self._worker.finish()
        finally:
            self._finishing = False

    def _flushed(self, error: BaseException | None) -> None:
        flushing, self._flushing = self._flushing, None
        if error is not None:
            self._fail(error)
        else:
            took = asyncio.get_running_loop().time() - self._began
            durable = self._store.durable
            self._written(Position(durable.epoch, durable.index))
            self.begin()
            if self._took is not None:
                self._took(took)
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
