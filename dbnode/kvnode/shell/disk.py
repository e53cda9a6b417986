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

QUICK = 0.001  # seconds that writes take on average below which the event loop waits for them
SLOW = 1.0  # what is thought of a disk that is not known yet
REMEMBERED = 8  # writes that the average is about
SMALL = 16 << 10  # bytes


class Worker(Protocol):
    """Does one piece of work after the other. The simulation has its own."""

    def begin(self, work: Work, done: Done, size: int) -> None:
        """Do the work, which writes `size` bytes, after this turn of the event loop, which goes on or not meanwhile.

        `done` is called on the event loop with what it raised, or None.
        """
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...


class LogWriter:
    """Writes the log: on the event loop while the disk is quick and the write small, else on a thread of its own.

    Handing work to a thread and back wakes a processor twice, and takes Python's lock from each other; that costs more than
    waiting for a disk that syncs in some tenths of a millisecond, of which nobody else on the loop notices anything. A disk that
    was slow once is waited for on the thread for the next dozens of writes. So a disk that stops stops the loop once; as long as it
    does, the replica is silent, and the others go on without it.
    """

    def __init__(
        self, took: Callable[[float], None] | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """`took` is told how many seconds each write took, where it was done."""
        self._took, self._clock = took, clock
        self._mean = SLOW
        self._loop = asyncio.get_running_loop()
        self._wanted: SimpleQueue[tuple[Work, Done] | None] = SimpleQueue()  # an executor's futures cost as much again
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def begin(self, work: Work, done: Done, size: int) -> None:
        """When this turn of the loop is over: what it sends is on its way then, and the thread need not wait for Python's lock."""
        if self._mean < QUICK and size <= SMALL:
            self._loop.call_soon(self._do_here, work, done)
        else:
            self._loop.call_soon(self._wanted.put, (work, done))

    def close(self) -> None:
        self._wanted.put(None)

    def _do_here(self, work: Work, done: Done) -> None:
        done(self._timed(work))

    def _run(self) -> None:
        while (wanted := self._wanted.get()) is not None:
            work, done = wanted
            error = self._timed(work)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(done, error)

    def _timed(self, work: Work) -> BaseException | None:
        began = self._clock()
        try:
            work()
        except BaseException as e:
            return e
        seconds = self._clock() - began
        self._mean += (seconds - self._mean) / REMEMBERED
        if self._took is not None:
            self._took(seconds)
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
        """`worker`: who flushes; a LogWriter unless one is given. `took` is told how many seconds each flush took."""
        self._store = store
        self._written, self._failed = written, failed
        self._worker = worker or LogWriter(took)
        self._unwritten = 0  # bytes
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
        self._unwritten += len(batch.data)
        if self._flushing is None:
            self._flush()

    @property
    def busy(self) -> bool:
        """Whether the thread is at work: what is written now waits for it."""
        return self._flushing is not None

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        self._flushing, self._began = loop.create_future(), loop.time()
        size, self._unwritten = self._unwritten, 0
        self._worker.begin(self._store.flush, self._flushed, size)

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
