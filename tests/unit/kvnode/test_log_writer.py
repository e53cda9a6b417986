"""Who writes the log: the event loop while the disk is quick and the write small, else a thread."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from kvnode.shell.disk import QUICK, SMALL, LogWriter


class Bench:
    """A writer on a disk whose writes take as long as the test says; where each was done."""

    def __init__(self) -> None:
        self.now = 0.0
        self.takes = QUICK / 10
        self.told: list[float] = []
        self.writer = LogWriter(self.told.append, lambda: self.now)

    async def write(self, size: int = 100, *, fails: bool = False) -> str:
        """Write; gives the name of the thread that did it, or raises what it raised."""
        done: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        names: list[str] = []

        def work() -> None:
            names.append(threading.current_thread().name)
            self.now += self.takes
            if fails:
                raise OSError(5, "Input/output error")

        self.writer.begin(work, done.set_result, size)
        assert not names, "not before this turn of the loop is over"
        error = await done
        if error is not None:
            raise error
        return "thread" if names == ["log"] else "loop"

    async def known_as_quick(self) -> None:
        """Write until the loop does it."""
        for _ in range(100):
            if await self.write() == "loop":
                return
        raise AssertionError(self.told)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    made.writer.close()


async def test_a_disk_is_not_known_at_first(bench: Bench) -> None:
    """A slow one must not stop the loop."""
    assert await bench.write() == "thread"


async def test_small_writes_to_a_quick_disk_are_done_by_the_loop(bench: Bench) -> None:
    await bench.known_as_quick()
    assert await bench.write(SMALL) == "loop"
    assert await bench.write(SMALL + 1) == "thread"
    assert bench.told == [pytest.approx(bench.takes)] * len(bench.told)


async def test_a_disk_that_stopped_once_is_waited_for_by_the_thread(bench: Bench) -> None:
    await bench.known_as_quick()
    bench.takes = 1.0
    assert await bench.write() == "loop"
    bench.takes = QUICK / 10
    assert [await bench.write() for _ in range(20)] == ["thread"] * 20
    await bench.known_as_quick()


async def test_a_disk_that_becomes_slow_is_left_to_the_thread(bench: Bench) -> None:
    await bench.known_as_quick()
    bench.takes = 2 * QUICK
    for _ in range(30):
        await bench.write()
    assert await bench.write() == "thread"


async def test_a_failure_is_told_wherever_it_happened(bench: Bench) -> None:
    with pytest.raises(OSError, match="Input/output"):
        await bench.write(fails=True)
    await bench.known_as_quick()
    with pytest.raises(OSError, match="Input/output"):
        await bench.write(fails=True)
