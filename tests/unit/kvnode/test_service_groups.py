"""Atomic groups and single writes through the request service, with commits made by hand."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvcommon.slotmap import SlotMap
from kvnode import service as service_module
from kvnode.core.types import Role
from kvnode.evaluation import MAX_LOG_BATCH_BYTES
from kvnode.operations import Code, Kind, Outcome, Request
from kvnode.reading import DamagedError, RefusedError
from kvnode.service import Service
from kvnode.work import LOST, Puts, Read, Transaction, Write
from kvstore.errors import CorruptionError
from tests.unit.kvnode.fake_host import FakeHost, ask, make_service
from tests.unit.kvnode.test_service import turn


@pytest.fixture
def host(tmp_path: Path) -> Iterator[FakeHost]:
    host = FakeHost(tmp_path / "data")
    yield host
    host.store.close()


@pytest.fixture
def service(host: FakeHost) -> Service:
    return make_service(host)


class Group(Transaction):
    """Keeps how it was settled."""

    settled: list[Outcome | None]

    def settle(self, refused: Outcome | None) -> None:
        self.settled.append(refused)


class Sets(Puts):
    """Keeps how they were settled."""

    settled: list[Outcome | None]

    def settle(self, refused: Outcome | None) -> None:
        self.settled.append(refused)


def increment(key: bytes) -> Group:
    def decide(read: Read) -> tuple[list[Write], int]:
        number = int(read(key) or b"0") + 1
        return [(key, b"%d" % number)], number

    group = Group(decide, len(key), float("inf"))
    group.settled = []
    return group


def group_of(*writes: Write, result: object = None) -> Group:
    group = Group(lambda _: (writes, result), sum(len(k) + len(v or b"") for k, v in writes), float("inf"))
    group.settled = []
    return group


def sets(*pairs: tuple[bytes, bytes], deadline: float = float("inf")) -> Sets:
    puts = Sets(deadline)
    puts.keys, puts.values = [k for k, _ in pairs], [v for _, v in pairs]
    puts.size = sum(len(k) + len(v) for k, v in pairs)
    puts.settled = []
    return puts


async def test_read_modify_write_sees_what_is_in_flight(host: FakeHost, service: Service) -> None:
    """Each increment builds on the one before, committed or not, and is settled by its commit (rule 9)."""
    first, second = increment(b"n"), increment(b"n")
    service.transact(0, first)
    await turn()
    service.transact(0, second)
    await turn()
    assert first.settled == second.settled == []
    assert service.get(b"n") is None
    host.commit()
    assert (first.result, second.result) == (1, 2)
    assert first.settled == second.settled == [None]
    assert service.get(b"n") == b"2"


async def test_an_atomic_group_is_one_batch_of_the_log(host: FakeHost, service: Service) -> None:
    """With whatever else is written in that turn; log batches survive whole or not at all."""
    ask(service, Request([(Kind.PUT, b"other", b"x", None)]))
    group = group_of((b"a", b"1"), (b"b", b"2"), (b"c", None))
    service.transact(0, group)
    await turn()
    assert [[r.key for r in records] for records in host.proposed] == [[b"other", b"a", b"b", b"c"]]
    host.commit()
    assert (service.get(b"a"), service.get(b"b")) == (b"1", b"2")


async def test_a_group_that_only_reads_waits_for_what_it_read(host: FakeHost, service: Service) -> None:
    """Nothing of its own is written."""
    service.transact(0, sets((b"k", b"v")))
    await turn()
    group = Group(lambda read: ((), read(b"k")), 1, float("inf"))
    group.settled = []
    service.transact(0, group)
    await turn()
    assert group.settled == []
    host.commit()
    assert (group.settled, group.result) == ([None], b"v")
    assert len(host.proposed) == 1


async def test_what_leadership_leaves_unknown_is_said_so(host: FakeHost, service: Service) -> None:
    """Begun and not committed: lost; only queued: certainly not done."""
    begun, puts, queued = increment(b"n"), sets((b"k", b"v")), increment(b"m")
    service.transact(0, begun)
    service.transact(0, puts)
    await turn()
    service.transact(0, queued)
    host.core.role, host.core.accepting = Role.FOLLOWER, False
    host.watcher.role_changed(Role.FOLLOWER, 2)
    assert begun.settled == puts.settled == [LOST]
    (refused,) = queued.settled
    assert refused is not None
    assert refused.code == Code.NOT_LEADER


async def test_too_few_copies_are_an_unknown_outcome(host: FakeHost, service: Service) -> None:
    """Rule 8 holds for groups."""
    group = increment(b"n")
    service.transact(0, group)
    await turn()
    host.commit(enough=False)
    (refused,) = group.settled
    assert refused is not None
    assert refused.code == Code.OUTCOME_UNKNOWN


async def test_refusals_before_anything_is_done(
    host: FakeHost, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No leader, too few replicas, a full disk, a full queue, a deadline: as for every write."""

    def refused() -> int:
        group = increment(b"n")
        service.transact(0, group)
        (outcome,) = group.settled
        assert outcome is not None
        return outcome.code

    host.core.enough = False
    assert refused() == Code.TOO_FEW_REPLICAS
    host.core.enough = True
    service.disk_full = True
    assert refused() == Code.RESOURCE_EXHAUSTED
    service.disk_full = False
    monkeypatch.setattr(service_module, "MAX_QUEUED_BYTES", 0)
    assert refused() == Code.RESOURCE_EXHAUSTED
    monkeypatch.undo()
    host.core.accepting = False
    assert refused() == Code.UNAVAILABLE
    host.core.accepting = True
    late = sets((b"k", b"v"), deadline=host.clock.time)
    service.transact(0, late)
    await turn()
    assert [o.code for o in late.settled if o] == [Code.DEADLINE_EXCEEDED]
    assert host.proposed == []


async def test_another_partitions_slot_is_refused(host: FakeHost) -> None:
    """Reads and writes; without a map nothing is known."""
    maps: list[SlotMap | None] = [SlotMap.even(2)]
    service = make_service(host, lambda: maps[0])
    group = increment(b"n")
    service.transact(16383, group)
    assert [o.code for o in group.settled if o] == [Code.MOVED]
    unfit = service.unfit(16383)
    assert unfit is not None
    assert unfit.code == Code.MOVED
    assert service.unfit(0) is None
    maps[0] = None
    unfit = service.unfit(0)
    assert unfit is not None
    assert unfit.code == Code.UNAVAILABLE
    assert service.unfit(None) is None


class Waiting:
    """One who waits for a single write."""

    def __init__(self) -> None:
        self.settled: list[Outcome | None] = []

    def settle(self, refused: Outcome | None) -> None:
        self.settled.append(refused)


def put(host: FakeHost, service: Service, key: bytes, seconds: float = 10.0) -> tuple[Puts, Waiting]:
    """Queue a single write; what it is queued in, and who waits for it."""
    puts, one = service.put(0, key, b"v", host.clock.time, host.clock.time + seconds), Waiting()
    assert isinstance(puts, Puts)
    puts.waiters.append(one)
    return puts, one


async def test_single_writes_are_queued_together(host: FakeHost, service: Service) -> None:
    """Whose ever they are; until the batch is made."""
    (puts, one), (same, other) = put(host, service, b"a"), put(host, service, b"b")
    assert same is puts
    await turn()
    later, third = put(host, service, b"c")
    assert later is not puts
    host.commit()
    assert [r.key for r in host.proposed[0]] == [b"a", b"b"]
    assert (one.settled, other.settled, third.settled) == ([None], [None], [])
    await turn()
    host.commit()
    assert third.settled == [None]
    assert service._queued_bytes == 0


async def test_single_writes_that_come_turn_by_turn_are_one_batch(host: FakeHost, service: Service) -> None:
    """Whatever kind they are of; but a write that comes alone is a batch at once."""
    put(host, service, b"alone")
    await asyncio.sleep(0)
    assert [r.key for r in host.proposed[0]] == [b"alone"]
    host.commit()
    put(host, service, b"a")
    put(host, service, b"b")
    await asyncio.sleep(0)
    service.transact(0, group_of((b"c", b"v")))
    await asyncio.sleep(0)
    put(host, service, b"d")
    assert len(host.proposed) == 1
    await turn()
    assert [r.key for r in host.proposed[1]] == [b"a", b"b", b"c", b"d"]


async def test_single_writes_keep_their_place_among_others(host: FakeHost, service: Service) -> None:
    """What came between two of them is done between them."""
    puts, _ = put(host, service, b"n")
    group = group_of((b"n", b"w"))
    service.transact(0, group)
    behind, _ = put(host, service, b"n")
    assert behind is not puts
    await turn()
    host.commit()
    assert [r.value for r in host.proposed[0]] == [b"v", b"w", b"v"]


async def test_single_writes_queued_together_have_about_one_deadline(
    host: FakeHost, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And are so many bytes at most."""
    puts, one = put(host, service, b"a", seconds=0.0)
    same, _ = put(host, service, b"b", seconds=1.0)
    other, patient = put(host, service, b"c", seconds=2.5)
    assert (same is puts, other is puts) == (True, False)
    monkeypatch.setattr(service_module, "MAX_PUTS_BYTES", 1)
    last, _ = put(host, service, b"d", seconds=2.5)
    assert last is not other
    await turn()
    host.commit()
    assert [o.code for o in one.settled if o] == [Code.DEADLINE_EXCEEDED]
    assert patient.settled == [None]


async def test_a_single_write_may_be_refused_at_once(host: FakeHost) -> None:
    """Elsewhere, without a map, too few in sync: nothing is queued."""
    maps: list[SlotMap | None] = [SlotMap.even(2)]
    service = make_service(host, lambda: maps[0])

    def code(slot: int) -> int:
        refused = service.put(slot, b"k", b"v", host.clock.time, float("inf"))
        assert isinstance(refused, Outcome)
        return refused.code

    assert code(16383) == Code.MOVED
    host.core.enough = False
    assert code(0) == Code.TOO_FEW_REPLICAS
    maps[0] = None
    assert code(0) == Code.UNAVAILABLE
    await turn()
    assert (host.proposed, service._queued_bytes) == ([], 0)


async def test_a_single_read_needs_slot_and_lease(host: FakeHost) -> None:
    """The lease at the time that the caller took after it had read the request (rule 5)."""
    maps: list[SlotMap | None] = [SlotMap.even(2)]
    service = make_service(host, lambda: maps[0])
    now = host.clock.time

    def code(slot: int) -> int:
        with pytest.raises(RefusedError) as refused:
            service.read(slot, b"k", now)
        return refused.value.outcome.code

    puts, _ = put(host, service, b"k")
    await turn()
    host.commit()
    assert puts.keys == [b"k"]
    assert (service.read(0, b"k", now), service.read(0, b"x", now)) == (b"v", None)
    assert code(16383) == Code.MOVED
    host.core.lease_until = now
    assert code(0) == Code.UNAVAILABLE
    maps[0] = None
    assert code(0) == Code.UNAVAILABLE


async def test_what_a_group_makes_counts_for_the_queue(host: FakeHost, service: Service) -> None:
    """A small command may write much; it is in memory until it is committed."""
    big = group_of((b"k", b"x" * 1000))
    big.size = 1
    service.transact(0, big)
    await turn()
    assert service._queued_bytes == 1001
    host.commit()
    assert service._queued_bytes == 0


async def test_a_group_too_large_for_a_batch_is_not_begun(host: FakeHost, service: Service) -> None:
    """It says how large it is."""
    big = group_of((b"k", b"x" * MAX_LOG_BATCH_BYTES))
    service.transact(0, big)
    await turn()
    assert [o.code for o in big.settled if o] == [Code.INVALID_ARGUMENT]
    assert host.proposed == []


async def test_a_log_that_can_not_be_read_fails_the_group_alone(
    host: FakeHost, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is written; the replica goes."""

    def damaged(_: bytes) -> None:
        raise CorruptionError("file", 0, "damage")

    monkeypatch.setattr(host.store, "get", damaged)
    group, other = increment(b"n"), sets((b"k", b"v"))
    service.transact(0, group)
    service.transact(0, other)
    await turn()
    monkeypatch.undo()
    host.commit()
    assert [o.code for o in group.settled if o] == [Code.UNAVAILABLE]
    assert other.settled == [None]
    assert len(host.damages) == 1
    monkeypatch.setattr(host.store, "get", damaged)
    with pytest.raises(DamagedError):
        service.get(b"k")
