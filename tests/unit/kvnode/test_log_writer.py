"""The log's thread: what it is given is done there, in order, and told to the event loop."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from kvnode.shell.disk import LogWriter


class Bench:
    """A writer, and what was done: by which thread, for how long."""

    def __init__(self) -> None:
        self.told: list[float] = []
        self.threads: list[str] = []
        self.writer = LogWriter(self.told.append)

    async def write(self, *, fails: bool = False) -> None:
        """Write once. Raises what the work raised."""
        done: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

        def work() -> None:
            self.threads.append(threading.current_thread().name)
            if fails:
                raise OSError(5, "Input/output error")

        before = len(self.threads)
        self.writer.begin(work, done.set_result)
        assert len(self.threads) == before, "not before this turn of the loop is over"
        error = await done
        if error is not None:
            raise error


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    made.writer.close()


async def test_the_loop_goes_on_while_the_thread_writes(bench: Bench) -> None:
    for _ in range(3):
        await bench.write()
    assert bench.threads == ["log"] * 3
    assert len(bench.told) == 3


async def test_a_failure_is_told_and_not_timed(bench: Bench) -> None:
    with pytest.raises(OSError, match="Input/output"):
        await bench.write(fails=True)
    assert bench.told == []
    await bench.write()
    assert bench.threads == ["log"] * 2
