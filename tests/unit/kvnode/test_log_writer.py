"""The log's thread: what it is given is done there, in order, and told to the event loop. Syncs by the kernel, where it does them."""

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kvnode.shell import disk
from kvnode.shell.disk import LogWriter
from kvnode.shell.kernel_sync import Done, KernelSync
from kvstore.files import File, OsFile, SyncError


class Bench:
    """A writer, and by which thread what was done."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.writer = LogWriter()

    async def write(self, *, fails: bool = False) -> None:
        """Write once. Raises what the work raised."""
        done: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

        def work() -> None:
            self.threads.append(threading.current_thread().name)
            if fails:
                raise OSError(5, "Input/output error")

        self.writer.begin(work, done.set_result)
        error = await done
        if error is not None:
            raise error


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    made.writer.close()


@pytest.fixture
def file(tmp_path: Path) -> OsFile:
    return OsFile(tmp_path / "f", os.O_CREAT)


async def test_the_loop_goes_on_while_the_thread_writes(bench: Bench) -> None:
    for _ in range(3):
        await bench.write()
    assert bench.threads == ["log"] * 3


async def test_a_failure_is_told(bench: Bench) -> None:
    with pytest.raises(OSError, match="Input/output"):
        await bench.write(fails=True)
    await bench.write()
    assert bench.threads == ["log"] * 2


async def synced(writer: LogWriter, file: File) -> BaseException | None:
    """What a sync came to."""
    done: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
    writer.sync(file, done.set_result)
    return await done


async def test_the_kernel_syncs_one_file_after_the_other(bench: Bench, file: OsFile) -> None:
    assert bench.writer.syncs, "no io_submit here: is it forbidden?"
    for turn in range(3):
        file.write(b"abc", 3 * turn)
        assert await synced(bench.writer, file) is None
    assert bench.writer.syncs


async def test_who_waits_for_a_sync_has_it_told_before(bench: Bench, file: OsFile) -> None:
    """And not again by the loop."""
    told: list[BaseException | None] = []
    bench.writer.finish()
    bench.writer.sync(file, told.append)
    assert told == []
    bench.writer.finish()
    assert told == [None]
    assert await synced(bench.writer, file) is None
    assert told == [None]


async def test_a_failed_sync_is_told_as_one(bench: Bench, file: OsFile) -> None:
    """The kernel gives its number without a sign."""
    told: list[BaseException | None] = []
    assert bench.writer._kernel is not None
    bench.writer._kernel._done(told.append, (1 << 64) - errno.EIO)
    (error,) = told
    assert isinstance(error, SyncError)
    assert error.errno == errno.EIO


async def test_a_file_that_the_kernel_does_not_sync_so_is_synced_all_the_same(bench: Bench) -> None:
    """By the thread from then on. A pipe can't be synced at all, which is told."""
    reading, writing = os.pipe()
    pipe = OsFile.__new__(OsFile)
    pipe._fd = writing
    error = await synced(bench.writer, pipe)
    assert isinstance(error, SyncError)
    assert error.errno == errno.EINVAL
    assert not bench.writer.syncs
    bench.writer.finish()
    await bench.write()
    os.close(reading)


async def test_where_the_kernel_has_no_aio_there_is_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forbidden(KernelSync):
        def __init__(self) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        def begin(self, file: File, done: Done) -> None:
            raise AssertionError

    monkeypatch.setattr(disk, "KernelSync", Forbidden)
    bench = Bench()
    assert not bench.writer.syncs
    bench.writer.finish()
    await bench.write()
    bench.writer.close()
    assert bench.threads == ["log"]
