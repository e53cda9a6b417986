import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from kvcommon.slotmap import SlotMap
from kvcoord.contract import Coordination, CoordinationUnavailableError, Versioned, Won
from kvcoord.memory import DONE_UNANSWERED, FINE, UNREACHED, Call, Fate, MemoryCoordination, MemoryStore
from tests.unit.kvcoord.contract_suite import STATE, Collector, ContractSuite, World, led_by, member


class MemoryWorld(World):
    def __init__(self) -> None:
        self.stores: dict[str, MemoryStore] = {}
        self.opened: list[MemoryCoordination] = []

    async def open(self, cluster: str = "a") -> Coordination:
        session = self.stores.setdefault(cluster, MemoryStore(session_timeout=0.2)).session()
        await session.start()
        self.opened.append(session)
        return session

    async def vanish(self, coordination: Coordination) -> None:
        assert isinstance(coordination, MemoryCoordination)
        coordination.crash()

    async def lose_session(self, coordination: Coordination) -> None:
        assert isinstance(coordination, MemoryCoordination)
        coordination.expire()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    memory = MemoryWorld()
    yield memory
    for session in memory.opened:
        await session.close()


class TestContract(ContractSuite):
    pass


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(session_timeout=0.1)


async def started(store: MemoryStore, name: str = "") -> MemoryCoordination:
    session = store.session(name)
    await session.start()
    return session


async def test_who_is_away_gets_unavailable_and_changes_nothing(store: MemoryStore) -> None:
    here, gone = await started(store), await started(store)
    gone.away = True
    with pytest.raises(CoordinationUnavailableError):
        await gone.create_map(SlotMap.even(1))
    assert await here.read_map() is None
    gone.away = False
    assert await gone.create_map(SlotMap.even(1)) == Won(0)


async def test_a_watch_is_silent_while_away_and_yields_the_newest_afterwards(store: MemoryStore) -> None:
    here, gone = await started(store), await started(store)
    await here.create_partition(0, STATE)
    watch = gone.watch_partition(0)
    assert await anext(watch) == Versioned(STATE, 0)
    gone.away = True
    later = asyncio.ensure_future(anext(watch))
    await here.compare_and_set_partition(0, 0, led_by("run1"))
    await here.compare_and_set_partition(0, 1, led_by("run2"))
    await asyncio.sleep(0.01)
    assert not later.done()
    gone.away = False
    assert await later == Versioned(led_by("run2"), 2)


async def test_a_registration_outlives_a_short_absence_and_not_a_long_one(store: MemoryStore) -> None:
    node, other = await started(store), await started(store)
    await node.register_member(member())
    collector = Collector(other.watch_members())
    node.away = True
    assert await other.read_members() == {"c-p0-0": member()}
    await collector.until(lambda seen: bool(seen) and not seen[-1], 1)
    node.away = False
    await collector.until(lambda seen: bool(seen[-1]), 1)


async def test_a_registration_while_away_is_made_on_return(store: MemoryStore) -> None:
    node, other = await started(store), await started(store)
    node.away = True
    with pytest.raises(CoordinationUnavailableError):
        await node.register_member(member())
    node.away = False
    assert await other.read_members() == {"c-p0-0": member()}


async def test_a_maybe_that_was_done(store: MemoryStore) -> None:
    a, b = await started(store, "a"), await started(store, "b")
    await b.create_partition(0, STATE)
    store.hook = lambda call: replace(DONE_UNANSWERED, patience=0.01) if call.session == "a" and call.writes else FINE
    with pytest.raises(CoordinationUnavailableError):
        await a.compare_and_set_partition(0, 0, led_by("run1"))
    assert await b.read_partition(0) == Versioned(led_by("run1"), 1)


async def test_a_maybe_that_is_done_after_its_caller_gave_up(store: MemoryStore) -> None:
    a, b = await started(store, "a"), await started(store, "b")
    await b.create_partition(0, STATE)
    store.hook = lambda call: Fate(delay=0.05, patience=0.01) if call.session == "a" else FINE
    with pytest.raises(CoordinationUnavailableError):
        await a.compare_and_set_partition(0, 0, led_by("run1"))
    assert await b.read_partition(0) == Versioned(STATE, 0)
    collector = Collector(b.watch_partition(0))
    await collector.until(lambda seen: bool(seen) and seen[-1] == Versioned(led_by("run1"), 1), 1)


async def test_a_change_that_arrives_after_its_session_is_not_done(store: MemoryStore) -> None:
    a, b = await started(store, "a"), await started(store, "b")
    store.hook = lambda call: Fate(delay=0.02, patience=0.05) if call.writes else FINE
    change = asyncio.ensure_future(a.create_partition(0, STATE, session=a.session))
    await asyncio.sleep(0)
    a.expire()
    with pytest.raises(CoordinationUnavailableError):
        await change
    assert await b.read_partition(0) is None


async def test_a_call_that_never_arrives(store: MemoryStore) -> None:
    a = await started(store)
    store.hook = lambda call: replace(UNREACHED, patience=0.01)
    with pytest.raises(CoordinationUnavailableError):
        await a.create_partition(0, STATE)
    store.hook = lambda _: FINE
    await asyncio.sleep(0.02)
    assert await a.read_partition(0) is None


async def test_the_hook_sees_every_call_and_may_delay_it(store: MemoryStore) -> None:
    a = await started(store, "a")
    calls: list[Call] = []

    def hook(call: Call) -> Fate:
        calls.append(call)
        return Fate(delay=0.01, answer_delay=0.01)

    store.hook = hook
    await a.create_partition(3, STATE)
    watch = a.watch_partition(3)
    assert await anext(watch) == Versioned(STATE, 0)
    assert calls == [Call("a", "create", "partitions/3"), Call("a", "watch", "partitions/3")]


async def test_data_that_was_lost_or_turned_back_is_shown(store: MemoryStore) -> None:
    a = await started(store)
    before = store.cells()
    await a.create_partition(0, STATE)
    watch = a.watch_partition(0)
    await anext(watch)
    store.put_back(before)
    assert await anext(watch) is None
    await a.create_partition(0, STATE)
    assert await anext(watch) == Versioned(STATE, 0)
