import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kvcoord.contract import Coordination, CoordinationUnavailableError, Versioned, Won
from kvcoord.sqlite import SqliteCoordination
from tests.unit.kvcoord.contract_suite import STATE, Collector, ContractSuite, World, led_by, member


class SqliteWorld(World):
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.opened: list[SqliteCoordination] = []

    def path(self, cluster: str = "a") -> Path:
        return self.directory / cluster / "coordination.db"

    async def open(self, cluster: str = "a", boot_id: str = "boot1", session_timeout: float = 2.0) -> Coordination:
        session = SqliteCoordination(self.path(cluster), session_timeout=session_timeout, boot_id=boot_id)
        await session.start()
        self.opened.append(session)
        return session

    async def vanish(self, coordination: Coordination) -> None:
        assert isinstance(coordination, SqliteCoordination)
        assert coordination._keeper is not None
        coordination._keeper.cancel()

    async def lose_session(self, coordination: Coordination) -> None:
        assert isinstance(coordination, SqliteCoordination)
        db = sqlite3.connect(coordination._path)
        db.execute("DELETE FROM members WHERE session = ?", (coordination._session.name,))
        db.commit()
        db.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[SqliteWorld]:
    sqlite = SqliteWorld(tmp_path)
    yield sqlite
    for session in sqlite.opened:
        await session.close()


class TestContract(ContractSuite):
    pass


async def test_everything_but_members_outlives_the_processes(world: SqliteWorld) -> None:
    first = await world.open()
    await first.create_partition(0, STATE)
    await first.compare_and_set_partition(0, 0, led_by("run1"))
    await first.register_member(member())
    await first.close()
    second = await world.open()
    assert await second.read_partition(0) == Versioned(led_by("run1"), 1)
    assert await second.read_members() == {}


async def test_members_of_an_earlier_boot_are_gone_at_once(world: SqliteWorld) -> None:
    before = await world.open(session_timeout=1000)
    await before.register_member(member())
    await world.vanish(before)
    after = await world.open(boot_id="boot2")
    assert await anext(aiter(after.watch_members())) == {}


async def test_a_file_locked_for_too_long_is_unavailable_and_then_usable_again(world: SqliteWorld) -> None:
    c = await world.open()
    await c.create_partition(0, STATE)
    lock = sqlite3.connect(world.path(), isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    with pytest.raises(CoordinationUnavailableError, match="locked"):
        await c.compare_and_set_partition(0, 0, led_by("run1"))
    assert await c.read_partition(0) == Versioned(STATE, 0)
    lock.execute("ROLLBACK")
    lock.close()
    assert await c.compare_and_set_partition(0, 0, led_by("run1")) == Won(1)


async def test_a_file_that_is_no_database_is_unavailable_by_name(world: SqliteWorld) -> None:
    world.path().parent.mkdir()
    world.path().write_text("this is not a database, whatever its name says" * 100)
    c = await world.open()
    with pytest.raises(CoordinationUnavailableError, match=r"coordination\.db: file is not a database"):
        await c.read_map()
    assert not c.connected


async def test_a_watch_begun_while_the_file_is_unusable_delivers_later(world: SqliteWorld) -> None:
    world.path().parent.mkdir()
    world.path().write_text("garbage " * 1000)
    c = await world.open()
    collector = Collector(c.watch_partition(0))
    with pytest.raises(CoordinationUnavailableError):
        await c.read_map()
    world.path().unlink()
    await collector.until(lambda seen: seen == [None], world.patience)


async def test_a_file_that_was_lost_has_taken_its_session_with_it(world: SqliteWorld) -> None:
    c = await world.open()
    assert await c.create_partition(0, STATE) == Won(0)
    session = c.session
    world.path().unlink()
    with pytest.raises(CoordinationUnavailableError, match="another file now"):
        await c.create_partition(0, STATE, session=session)
    assert await c.read_partition(0) is None
    assert await c.create_partition(0, STATE, session=c.session) == Won(0)


async def test_a_change_is_seen_by_another_process_within_a_fifth_of_a_second(world: SqliteWorld) -> None:
    writer, watcher = await world.open(), await world.open()
    await writer.create_partition(0, STATE)
    collector = Collector(watcher.watch_partition(0))
    await collector.until(bool, world.patience)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await writer.compare_and_set_partition(0, 0, led_by("run1"))
    await collector.until(lambda seen: len(seen) == 2, world.patience)
    assert loop.time() - begin < 0.5  # 50 ms of polling, with room for a busy machine
