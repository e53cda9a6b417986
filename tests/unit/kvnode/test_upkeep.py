"""The store's upkeep: it goes on while there is work, stands back when refused, and tells of damage."""

import asyncio
import errno
import os
from collections.abc import Callable
from typing import Any, cast

import pytest

from kvnode.shell import upkeep
from kvnode.shell.upkeep import Upkeep
from kvstore.errors import CorruptionError, StoreClosedError, StoreFailedError
from kvstore.files import SyncError
from kvstore.segment import segment_name
from kvstore.store import Store
from tests.support.faulty_files import FaultyFiles
from tests.unit.kvnode.fake_host import FakeClock
from tests.unit.kvstore.support import DATA, fill, open_store


class FakeStore:
    """A store of three segments whose work is a list of results, errors among them."""

    segments = 3

    def __init__(self, *results: bool | Exception) -> None:
        self.results = list(results)
        self.allowed: list[int] = []
        self.verified = 0

    def allow_purge(self, index: int) -> None:
        self.allowed.append(index)

    def maintain(self) -> bool:
        result = self.results.pop(0) if self.results else StoreClosedError("closed")
        if isinstance(result, Exception):
            raise result
        return result

    def verify(self) -> int:
        self.verified += 1
        return 1


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long it paused each time; no time passes."""
    found: list[float] = []
    sleep = asyncio.sleep

    async def no_sleep(seconds: float) -> None:
        found.append(seconds)
        await sleep(0)

    monkeypatch.setattr("kvnode.shell.upkeep.asyncio.sleep", no_sleep)
    return found


def not_told(error: Exception) -> None:
    raise AssertionError(error)


def make(
    store: FakeStore, clock: FakeClock | None = None, damaged: Callable[[Exception], None] = not_told, **how: Any
) -> Upkeep:
    passed = iter(range(7, 100))
    return Upkeep(
        cast("Store", store),
        clock or FakeClock(),
        passed=lambda: next(passed),
        damaged=damaged,
        **{"verify_every": 0.0} | how,
    )


async def test_it_works_on_while_there_is_work_and_then_looks_again_now_and_then(pauses: list[float]) -> None:
    """Before each piece it says how far all replicas are."""
    store = FakeStore(True, True, False, True)
    await make(store).run()
    assert pauses == [0.0, 0.0, upkeep.PAUSE, 0.0]
    assert store.allowed == [7, 8, 9, 10, 11]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_a_disk_without_room_is_left_in_peace_for_longer(pauses: list[float], number: int) -> None:
    """And the work goes on afterwards."""
    store = FakeStore(OSError(number, os.strerror(number)), True)
    await make(store).run()
    assert pauses == [upkeep.PAUSE_WHEN_REFUSED, 0.0]


@pytest.mark.parametrize(
    "error",
    [
        CorruptionError("f", 1, "bad"),
        StoreFailedError("sync"),
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.EROFS, "Read-only file system"),
        SyncError(errno.ENOSPC, "No space left on device"),
        OSError("of an unknown kind"),
    ],
    ids=repr,
)
async def test_damage_is_told_once_and_nothing_is_done_any_more(pauses: list[float], error: Exception) -> None:
    """The replica is to leave and be rebuilt."""
    told: list[Exception] = []
    store = FakeStore(error, True)
    await make(store, damaged=told.append).run()
    assert (told, pauses, store.results) == ([error], [], [True])


async def test_a_place_that_cannot_be_read_is_damage(pauses: list[float]) -> None:
    """In a real store, in a segment that a compaction wants."""
    told: list[Exception] = []
    files = FaultyFiles()
    with open_store(files) as store:
        fill(store, 30)
        files.damage(DATA / segment_name(1), 100)
        await Upkeep(store, FakeClock(), passed=lambda: 0, damaged=told.append, verify_every=0.0).run()
    assert isinstance(told[0], OSError)
    assert told[0].errno == errno.EIO
    assert pauses == []


async def test_a_disk_without_room_is_verified_all_the_same(pauses: list[float]) -> None:
    """Nothing of that needs room."""
    clock = FakeClock()
    store = FakeStore(OSError(errno.ENOSPC, "No space left on device"))
    upkeeper = make(store, clock, verify_every=60.0)
    clock.time += 60.0
    await upkeeper.run()
    assert (store.verified, pauses) == (1, [upkeep.PAUSE_WHEN_REFUSED])


async def test_all_segments_are_verified_in_the_time_that_is_set(pauses: list[float]) -> None:
    """One after the other, when there is nothing else to do."""
    clock = FakeClock()
    store = FakeStore(*[False] * 12)
    taken = store.maintain

    def maintain() -> bool:
        clock.time += 10.0
        return taken()

    store.maintain = maintain  # type: ignore[method-assign]
    await make(store, clock, verify_every=60.0).run()
    assert store.verified == 6, "three segments in 60 s, for 120 s"
    assert set(pauses) == {upkeep.PAUSE}
