"""What every implementation of the coordination contract must do; a test module subclasses it with its own world."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Generic, TypeVar

import pytest

from kvcommon.slotmap import SlotMap
from kvcoord.contract import (
    ClusterIdentity,
    Coordination,
    CoordinationUnavailableError,
    Death,
    Lost,
    MemberInfo,
    PartitionState,
    ReplicaId,
    RunId,
    Versioned,
    Won,
)

T = TypeVar("T")

IDENTITY = ClusterIdentity("0f7e0a2c-6f7c-4d8e-9a53-1f2b3c4d5e6f", "c", partitions=2, replicas=3)
REPLICAS = tuple(ReplicaId(f"c-p0-{i}", f"disk{i}") for i in range(3))
STATE = PartitionState(0, None, REPLICAS, tuple(r.pod for r in REPLICAS), min_in_sync=2)


def member(pod: str = "c-p0-0", run: str = "run1", **changes: object) -> MemberInfo:
    """A member as a node registers it."""
    info = MemberInfo(pod, 0, ReplicaId(pod, "disk"), run, "10.0.0.1:7400", "10.0.0.1:7401", "10.0.0.1:7480")
    return replace(info, **changes)  # type: ignore[arg-type]


def led_by(run: str, state: PartitionState = STATE) -> PartitionState:
    """The next state, with the first replica's run as the leader."""
    return replace(state, epoch=state.epoch + 1, leader=RunId(REPLICAS[0], run), serial=state.serial + 1)


class World(ABC):
    """One service with any number of processes that use it."""

    patience = 10.0

    @abstractmethod
    async def open(self, cluster: str = "a") -> Coordination:
        """A new process's coordination of a cluster, started."""

    @abstractmethod
    async def vanish(self, coordination: Coordination) -> None:
        """The process dies without a word."""

    @abstractmethod
    async def lose_session(self, coordination: Coordination) -> None:
        """The process lives, the service has forgotten its session."""

    async def wait_for(self, watch: AsyncIterator[T], wanted: Callable[[T], bool]) -> T:
        """The first value that is wanted."""
        async with asyncio.timeout(self.patience):
            async for value in watch:
                if wanted(value):
                    return value
        raise AssertionError("the watch ended")


class Collector(Generic[T]):
    """Everything a watch yields, gathered by a task."""

    def __init__(self, watch: AsyncIterator[T]) -> None:
        self.seen: list[T] = []
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._collect(watch))

    async def _collect(self, watch: AsyncIterator[T]) -> None:
        async for value in watch:
            self.seen.append(value)
            self._changed.set()

    async def until(self, wanted: Callable[[list[T]], bool], patience: float) -> None:
        async with asyncio.timeout(patience):
            while not wanted(self.seen):
                self._changed.clear()
                await self._changed.wait()

    async def ended(self, patience: float) -> None:
        async with asyncio.timeout(patience):
            await self._task


class ContractSuite:
    """Run once per implementation, with its `world` fixture."""

    async def test_identity_is_made_once(self, world: World) -> None:
        first, second = await world.open(), await world.open()
        assert await first.read_identity() is None
        assert isinstance(await first.create_identity(IDENTITY), Won)
        assert isinstance(await second.create_identity(replace(IDENTITY, name="other")), Lost)
        assert await second.read_identity() == IDENTITY

    async def test_a_map_is_made_once_and_changed_by_compare_and_set(self, world: World) -> None:
        first, second = await world.open(), await world.open()
        assert await first.read_map() is None
        one, two = SlotMap.even(2), SlotMap.even(3, version=2)
        assert await first.compare_and_set_map(0, one) == Lost()
        assert await first.create_map(one) == Won(0)
        assert await second.create_map(two) == Lost()
        assert await second.read_map() == Versioned(one, 0)
        assert await second.compare_and_set_map(0, two) == Won(1)
        assert await first.compare_and_set_map(0, one) == Lost()
        assert await first.read_map() == Versioned(two, 1)

    async def test_partitions_do_not_meet(self, world: World) -> None:
        c = await world.open()
        await c.create_partition(0, STATE)
        assert await c.read_partition(1) is None
        assert isinstance(await c.create_partition(1, STATE), Won)
        await c.compare_and_set_partition(1, 0, led_by("run1"))
        assert await c.read_partition(0) == Versioned(STATE, 0)

    async def test_of_many_births_one_wins(self, world: World) -> None:
        sessions = [await world.open() for _ in range(4)]
        outcomes = await asyncio.gather(*(c.create_partition(0, STATE) for c in sessions for _ in range(4)))
        assert sum(isinstance(o, Won) for o in outcomes) == 1

    async def test_exactly_one_compare_and_set_wins_each_version(self, world: World) -> None:
        sessions = [await world.open() for _ in range(4)]
        await sessions[0].create_partition(0, STATE)
        won: list[int] = []

        async def race(c: Coordination, name: str) -> None:
            for _ in range(10):
                now = await c.read_partition(0)
                assert now is not None
                outcome = await c.compare_and_set_partition(0, now.version, led_by(name, now.value))
                if isinstance(outcome, Won):
                    assert outcome.version == now.version + 1
                    won.append(outcome.version)

        await asyncio.gather(*(race(c, f"{i}-{j}") for i, c in enumerate(sessions) for j in range(3)))
        assert sorted(won) == list(range(1, len(won) + 1))
        end = await sessions[0].read_partition(0)
        assert end is not None
        assert (end.version, end.value.epoch) == (len(won), len(won))

    async def test_what_belongs_to_a_session_is_done_in_it_or_not_at_all(self, world: World) -> None:
        c = await world.open()
        assert await c.read_partition(0) is None
        this, other = c.session, c.session + 1
        with pytest.raises(CoordinationUnavailableError):
            await c.create_partition(0, STATE, session=other)
        assert await c.read_partition(0) is None
        assert await c.create_partition(0, STATE, session=this) == Won(0)
        with pytest.raises(CoordinationUnavailableError):
            await c.compare_and_set_partition(0, 0, led_by("run1"), session=other)
        assert await c.read_partition(0) == Versioned(STATE, 0)
        assert await c.compare_and_set_partition(0, 0, led_by("run1"), session=this) == Won(1)

    async def test_a_read_sees_every_write_acknowledged_before_it(self, world: World) -> None:
        writer, reader = await world.open(), await world.open()
        await writer.create_partition(0, STATE)
        for version in range(20):
            await writer.compare_and_set_partition(0, version, led_by(f"run{version}"))
            now = await reader.read_partition(0)
            assert now is not None
            assert now.version == version + 1

    async def test_a_watch_yields_none_then_the_birth_then_changes(self, world: World) -> None:
        writer, watcher = await world.open(), await world.open()
        watch = aiter(watcher.watch_partition(0))
        assert await anext(watch) is None
        await writer.create_partition(0, STATE)
        assert await world.wait_for(watch, lambda v: v is not None) == Versioned(STATE, 0)
        await writer.compare_and_set_partition(0, 0, led_by("run1"))
        assert await world.wait_for(watch, lambda v: v is not None) == Versioned(led_by("run1"), 1)

    async def test_a_watch_sees_its_own_process_changes(self, world: World) -> None:
        c = await world.open()
        await c.create_map(SlotMap.even(2))
        watch = aiter(c.watch_map())
        assert await anext(watch) == Versioned(SlotMap.even(2), 0)
        await c.compare_and_set_map(0, SlotMap.even(3, version=2))
        assert await world.wait_for(watch, lambda _: True) == Versioned(SlotMap.even(3, version=2), 1)

    async def test_a_watch_never_goes_back_and_reaches_the_newest(self, world: World) -> None:
        writers = [await world.open() for _ in range(2)]
        watcher = await world.open()
        await writers[0].create_partition(0, STATE)
        collectors = [Collector(c.watch_partition(0)) for c in (*writers, watcher)]

        async def write(c: Coordination) -> None:
            for _ in range(25):
                now = await c.read_partition(0)
                assert now is not None
                await c.compare_and_set_partition(0, now.version, led_by("run", now.value))

        await asyncio.gather(*(write(c) for c in writers))
        end = await watcher.read_partition(0)
        for collector in collectors:
            await collector.until(lambda seen: bool(seen) and seen[-1] == end, world.patience)
            versions = [v.version for v in collector.seen if v is not None]
            assert versions == sorted(set(versions))

    async def test_a_member_is_seen_by_all_and_gone_when_it_closes(self, world: World) -> None:
        node, other = await world.open(), await world.open()
        watch = aiter(other.watch_members())
        assert await anext(watch) == {}
        await node.register_member(member())
        assert await world.wait_for(watch, bool) == {"c-p0-0": member()}
        assert await other.read_members() == {"c-p0-0": member()}
        await node.close()
        assert await world.wait_for(watch, lambda m: not m) == {}
        assert await other.read_members() == {}

    async def test_a_members_new_words_replace_the_old(self, world: World) -> None:
        node, other = await world.open(), await world.open()
        watch = aiter(other.watch_members())
        await node.register_member(member(empty=True))
        await world.wait_for(watch, bool)
        await node.register_member(member(empty=False))
        assert (await world.wait_for(watch, lambda m: not m["c-p0-0"].empty)) == {"c-p0-0": member()}

    async def test_a_member_that_dies_is_gone_after_its_session(self, world: World) -> None:
        node, other = await world.open(), await world.open()
        await node.register_member(member())
        watch = aiter(other.watch_members())
        await world.wait_for(watch, bool)
        await world.vanish(node)
        await world.wait_for(watch, lambda m: not m)

    async def test_a_living_member_that_lost_its_session_comes_back_by_itself(self, world: World) -> None:
        node, other = await world.open(), await world.open()
        await node.register_member(member())
        collector = Collector(other.watch_members())
        await collector.until(lambda seen: bool(seen) and seen[-1] == {"c-p0-0": member()}, world.patience)
        await world.lose_session(node)
        await world.wait_for(aiter(other.watch_members()), lambda m: m == {"c-p0-0": member()})
        await collector.until(lambda seen: seen[-1] == {"c-p0-0": member()}, world.patience)

    async def test_a_newer_run_of_a_pod_takes_the_place_of_the_older_for_good(self, world: World) -> None:
        older, newer, other = await world.open(), await world.open(), await world.open()
        await older.register_member(member(run="run1"))
        await newer.register_member(member(run="run2"))
        watch = aiter(other.watch_members())
        await world.wait_for(watch, lambda m: m["c-p0-0"].run == "run2")
        await world.lose_session(older)
        await older.close()
        assert (await other.read_members())["c-p0-0"].run == "run2"
        await newer.close()
        assert await world.wait_for(watch, lambda m: not m) == {}

    async def test_an_older_run_does_not_come_back_after_the_newer_has_gone(self, world: World) -> None:
        older, newer, other = await world.open(), await world.open(), await world.open()
        await older.register_member(member(run="run1"))
        await newer.register_member(member(run="run2"))
        await newer.close()
        await world.lose_session(older)
        await other.register_member(member("c-p0-1", run="run3"))
        await world.lose_session(other)
        collector = Collector(other.watch_members())
        await collector.until(lambda seen: bool(seen) and "c-p0-1" in seen[-1], world.patience)
        assert all("c-p0-0" not in seen for seen in collector.seen)

    async def test_the_newest_word_of_death_per_pod_counts(self, world: World) -> None:
        operator, node = await world.open(), await world.open()
        watch = aiter(node.watch_deaths())
        assert await anext(watch) == {}
        first, second = Death("c-p0-0", "run1", "containerd://1", 3), Death("c-p0-0", "run2", "containerd://2", 4)
        other = Death("c-p0-1", "run9", "containerd://9", 4)
        await operator.report_death(first)
        assert await world.wait_for(watch, bool) == {"c-p0-0": first}
        await operator.report_death(other)
        await operator.report_death(second)
        assert await world.wait_for(watch, lambda d: len(d) == 2 and d["c-p0-0"] == second)

    async def test_words_of_death_said_at_once_are_all_heard(self, world: World) -> None:
        operators = [await world.open() for _ in range(3)]
        deaths = [Death(f"c-p0-{i}", "run", "containerd://1", 1) for i in range(3)]
        await asyncio.gather(*(c.report_death(d) for c, d in zip(operators, deaths, strict=True)))
        heard = await world.wait_for(aiter(operators[0].watch_deaths()), lambda d: len(d) == 3)
        assert set(heard.values()) == set(deaths)

    async def test_two_clusters_do_not_meet(self, world: World) -> None:
        a, b = await world.open("a"), await world.open("b")
        await a.create_identity(IDENTITY)
        await a.create_map(SlotMap.even(2))
        await a.create_partition(0, STATE)
        await a.register_member(member())
        await a.report_death(Death("c-p0-0", "run1", "containerd://1", 3))
        assert await b.read_identity() is None
        assert await b.read_map() is None
        assert await b.read_partition(0) is None
        assert await b.read_members() == {}
        async with aclosing(b.watch_deaths()) as deaths:  # type: ignore[type-var]
            assert await anext(deaths) == {}

    async def test_closing_ends_the_watches(self, world: World) -> None:
        c = await world.open()
        collectors: list[Collector[Any]] = [
            Collector(c.watch_map()),
            Collector(c.watch_partition(0)),
            Collector(c.watch_members()),
            Collector(c.watch_deaths()),
        ]
        for collector in collectors:
            await collector.until(bool, world.patience)
        await c.close()
        for collector in collectors:
            await collector.ended(world.patience)

    async def test_a_watch_can_be_cancelled_and_left(self, world: World) -> None:
        c = await world.open()
        watching = asyncio.create_task(world.wait_for(aiter(c.watch_map()), lambda m: m is not None))
        await asyncio.sleep(0)
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
        assert await c.create_map(SlotMap.even(1)) == Won(0)

    async def test_connected_after_an_answer_and_not_after_close(self, world: World) -> None:
        c = await world.open()
        await c.read_map()
        assert c.connected
        await c.close()
        assert not c.connected
        await c.close()
