"""The log's writer feeds a store: what is told durable is, whoever synced it, and whatever happens meanwhile."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvnode.core.types import Batch, Position
from kvnode.shell.disk import Disk
from kvstore.batch import RecordType, encode_batch
from kvstore.errors import StoreError
from kvstore.files import File, SyncError
from kvstore.store import Store, StoreOptions
from tests.support.faulty_files import FaultyFiles, io_error

DATA = Path("/data")


class Hand:
    """A worker whose work is done when the test says so."""

    def __init__(self, *, syncs: bool = True) -> None:
        self.syncs = syncs
        self.work: list[tuple[Callable[[], object], Callable[[BaseException | None], None]]] = []
        self.kinds: list[str] = []

    def begin(self, work: Callable[[], object], done: Callable[[BaseException | None], None]) -> None:
        self.kinds.append("flush")
        self.work.append((work, done))

    def sync(self, file: File, done: Callable[[BaseException | None], None]) -> None:
        self.kinds.append("sync")
        self.work.append((file.sync, done))

    def finish(self) -> None:
        if self.work and self.kinds[-1] == "sync":
            self.end()

    def end(self) -> None:
        """Do what is next."""
        work, done = self.work.pop(0)
        try:
            work()
        except OSError as e:
            done(e)
        else:
            done(None)

    def close(self) -> None:
        return


class Bench:
    """A disk, and what it told."""

    def __init__(self, *, syncs: bool = True) -> None:
        self.files = FaultyFiles()
        options = StoreOptions(segment_bytes=300_000, preallocate_bytes=100_000, new_incarnation=lambda: "1")
        self.store = Store.open(DATA, cluster_id="c", partition=0, files=self.files, options=options)
        self.worker = Hand(syncs=syncs)
        self.written: list[Position] = []
        self.failed: list[str] = []
        self.took: list[float] = []
        told, failed = self.written.append, self.failed.append
        self.disk = Disk(self.store, written=told, failed=failed, worker=self.worker, took=self.took.append)

    async def write(self, first: int, size: int = 10, epoch: int = 1) -> None:
        """Append a batch of one record; its turn of the loop is over then."""
        data = encode_batch(epoch, first, 0, [(RecordType.PUT, b"k", bytes(size), first, 0)])
        self.disk.write(Batch(epoch, first, first, data), trusted=True)
        self.disk.begin()
        await asyncio.sleep(0)

    async def settle(self, first: int = 1) -> None:
        """A first batch, by the thread: there are zeros behind it."""
        await self.write(first)
        self.worker.end()
        self.written.clear()
        self.worker.kinds.clear()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.files.heal()
    with contextlib.suppress(RuntimeError, StoreError, OSError):  # some end in the middle
        made.store.close()


async def test_a_small_write_is_synced_without_the_thread(bench: Bench) -> None:
    """It is told durable once it is, and what came meanwhile goes next."""
    await bench.settle()
    await bench.write(2)
    await bench.write(3)
    assert bench.worker.kinds == ["sync"]
    assert (bench.written, bench.store.durable) == ([], (1, 1))
    assert bench.disk.busy
    bench.worker.end()
    assert bench.written == [Position(1, 2)]
    await asyncio.sleep(0)
    bench.worker.end()
    assert bench.worker.kinds == ["sync", "sync"]
    assert (bench.written, bench.store.durable) == ([Position(1, 2), Position(1, 3)], (1, 3))
    assert not bench.disk.busy
    bench.files.crash()
    again = Store.open(DATA, cluster_id="c", partition=0, files=bench.files)
    assert again.end == (1, 3)


async def test_nothing_is_written_until_it_is_to_begin(bench: Bench) -> None:
    """Then all that was appended is, at once."""
    await bench.settle()
    for index in (2, 3):
        data = encode_batch(1, index, 0, [(RecordType.PUT, b"k", b"v", index, 0)])
        bench.disk.write(Batch(1, index, index, data), trusted=True)
    await asyncio.sleep(0)
    assert bench.disk.appended
    assert not bench.worker.work
    bench.disk.begin()
    assert bench.worker.kinds == ["sync"], "in this turn of the loop"
    assert not bench.disk.appended
    bench.worker.end()
    assert bench.written == [Position(1, 3)]
    bench.disk.begin()
    assert not bench.disk.busy, "there is nothing more"


async def test_each_flush_that_succeeds_is_timed(bench: Bench) -> None:
    """By the kernel as by the thread; how long one took that failed says nothing of the disk's pace."""
    await bench.settle()
    await bench.write(2)
    bench.worker.end()
    assert len(bench.took) == 2
    assert all(0 <= seconds < 60 for seconds in bench.took)
    bench.files.failing_syncs = 1
    await bench.write(3)
    bench.worker.end()
    assert bench.failed
    assert len(bench.took) == 2


@pytest.mark.parametrize(("size", "epoch"), [(70_000, 1), (100_000, 1), (10, 2)])
async def test_what_is_large_or_of_a_new_epoch_or_finds_no_zeros_is_for_the_thread(
    bench: Bench, size: int, epoch: int
) -> None:
    await bench.settle()
    await bench.write(2, size, epoch)
    bench.worker.end()
    assert bench.worker.kinds == ["flush"]
    assert bench.written == [Position(epoch, 2)]


async def test_a_worker_that_does_not_sync_has_it_all() -> None:
    bench = Bench(syncs=False)
    await bench.settle()
    await bench.write(2)
    bench.worker.end()
    assert bench.worker.kinds == ["flush"]
    bench.store.close()


async def test_zeros_are_used_up_to_their_end_and_then_the_thread_makes_more(bench: Bench) -> None:
    await bench.settle()
    for index in range(2, 14):
        await bench.write(index, 20_000)
        bench.worker.end()
    assert bench.worker.kinds == [*["sync"] * 4, "flush", *["sync"] * 4, "flush", "sync", "sync"]
    assert bench.store.durable == (1, 13)


async def test_a_failed_sync_fails_the_store_for_good(bench: Bench) -> None:
    """And nothing is told durable, now or later."""
    await bench.settle()
    await bench.write(2)
    bench.files.failing_syncs = 1
    bench.worker.end()
    assert bench.store.failure is not None
    assert len(bench.failed) == 1
    await bench.write(3)
    assert (bench.written, bench.worker.work) == ([], [])
    with pytest.raises(type(bench.store.failure)):
        bench.store.flush()


async def test_a_failed_write_is_told_like_a_failed_flush(bench: Bench) -> None:
    await bench.settle()
    bench.files.failing_writes = 1
    await bench.write(2)
    assert len(bench.failed) == 1
    assert (bench.written, bench.worker.work, bench.store.durable) == ([], [], (1, 1))


async def test_before_a_cut_the_sync_under_way_is_waited_for(bench: Bench) -> None:
    """What it made durable is told later, as it is after the cut."""
    await bench.settle()
    await bench.write(2)
    await bench.write(3)
    bench.disk.finish()
    assert bench.written == []
    assert bench.store.cut(1) == (1, 1)
    await asyncio.sleep(0)
    assert bench.written == [Position(1, 1)]
    await bench.write(2, epoch=2)
    bench.worker.end()
    assert bench.written[-1] == Position(2, 2)


async def test_before_a_cut_a_sync_that_fails_is_no_less_a_failure(bench: Bench) -> None:
    await bench.settle()
    await bench.write(2)
    bench.files.failing_syncs = 1
    bench.disk.finish()
    assert bench.store.failure is not None
    await asyncio.sleep(0)
    assert (len(bench.failed), bench.written) == (1, [])


async def test_close_waits_for_the_sync_under_way(bench: Bench) -> None:
    await bench.settle()
    await bench.write(2)
    closing = asyncio.ensure_future(bench.disk.close())
    await asyncio.sleep(0)
    assert not closing.done()
    bench.worker.end()
    await closing
    assert bench.store.durable == (1, 2)


async def test_a_store_is_not_flushed_cut_or_written_ahead_between_the_halves(bench: Bench) -> None:
    await bench.settle()
    await bench.write(2)
    for forbidden in (bench.store.flush, bench.store.write_ahead, lambda: bench.store.cut(1)):
        with pytest.raises(RuntimeError, match="synced first"):
            forbidden()
    bench.store.synced()
    with pytest.raises(RuntimeError, match="nothing was written"):
        bench.store.synced(SyncError(*io_error().args))


async def test_readers_do_not_see_what_is_not_synced_yet(bench: Bench) -> None:
    """Neither does a start after power was lost."""
    await bench.settle()
    await bench.write(2)
    segment = bench.store._log.segments[-1]
    assert [header.last for header, _, _ in segment.batches(1)] == [1]
    bench.files.crash()
    again = Store.open(DATA, cluster_id="c", partition=0, files=bench.files)
    assert again.end == (1, 1)
