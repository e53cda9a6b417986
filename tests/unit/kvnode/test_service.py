"""The request service, with commits made by hand."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kvcommon.numbers import DEDUPLICATION_WINDOW, MAX_KEY_BYTES, MAX_VALUE_BYTES
from kvcommon.slotmap import SlotMap
from kvcommon.versions import pack_version
from kvnode import service as service_module
from kvnode.core.types import Role
from kvnode.gathering import QUIET_TURNS
from kvnode.operations import Code, Kind, Operation, ReadMode, Request
from kvnode.reading import MAX_ANSWER_BYTES
from kvnode.service import MAX_IN_FLIGHT, UNKNOWN_AFTER, Service
from kvstore.batch import RecordType
from kvstore.errors import CorruptionError
from tests.unit.kvnode.fake_host import FakeHost, ask, make_service

CLIENT = b"c" * 16


@pytest.fixture
def host(tmp_path: Path) -> Iterator[FakeHost]:
    host = FakeHost(tmp_path / "data")
    yield host
    host.store.close()


@pytest.fixture
def service(host: FakeHost) -> Service:
    return make_service(host)


def put(key: bytes, value: bytes = b"v", expected: int | None = None) -> Operation:
    return (Kind.PUT, key, value, expected)


def get(key: bytes) -> Operation:
    return (Kind.GET, key, b"", None)


def create(key: bytes, value: bytes = b"v") -> Operation:
    return (Kind.CREATE, key, value, None)


def delete(key: bytes, expected: int | None = None) -> Operation:
    return (Kind.DELETE, key, b"", expected)


async def turn() -> None:
    """Let what is scheduled on the loop run, until single writes that came are gathered."""
    for _ in range(QUIET_TURNS + 2):
        await asyncio.sleep(0)


async def test_a_write_is_answered_when_it_is_committed_and_applied(host: FakeHost, service: Service) -> None:
    """Not before."""
    write = ask(service, Request([put(b"k", b"1")]))
    await turn()
    assert write.waits
    assert ask(service, Request([get(b"k")])).codes == [Code.NOT_FOUND]
    host.commit()
    assert write.codes == [Code.OK]
    read = ask(service, Request([get(b"k")])).outcomes[0]
    assert (read.code, read.value, read.version) == (Code.OK, b"1", write.outcomes[0].version)


async def test_writes_of_one_turn_are_one_batch(host: FakeHost, service: Service) -> None:
    """Group commit."""
    for i in range(10):
        ask(service, Request([put(b"%d" % i)]))
    await turn()
    assert [len(records) for records in host.proposed] == [10]


async def test_conditions_see_what_is_in_flight(host: FakeHost, service: Service) -> None:
    """Evaluated on the index with what is appended and not committed over it (rule 9)."""
    first = ask(service, Request([create(b"k")]))
    await turn()
    second = ask(service, Request([create(b"k")]))
    removed = ask(service, Request([delete(b"k")]))
    again = ask(service, Request([create(b"k", b"2"), get(b"k")]))
    await turn()
    assert first.waits
    assert second.waits
    assert removed.waits
    assert again.waits
    host.commit()
    assert first.codes == [Code.OK]
    assert second.codes == [Code.ALREADY_EXISTS]
    assert second.outcomes[0].version == first.outcomes[0].version
    assert removed.codes == [Code.OK]
    assert again.codes == [Code.OK, Code.OK]
    assert again.outcomes[1].value == b"2"


async def test_a_refusal_waits_for_the_commit_it_depends_on(host: FakeHost, service: Service) -> None:
    """Also when nothing of its own is to be written (rule 9)."""
    write = ask(service, Request([put(b"k")]))
    await turn()
    refused = ask(service, Request([create(b"k")]))
    await turn()
    assert refused.waits
    host.commit()
    assert write.codes == [Code.OK]
    assert refused.codes == [Code.ALREADY_EXISTS]


async def test_a_refusal_without_a_lease_is_none(host: FakeHost, service: Service) -> None:
    """An older batch's commit does not show that nobody else leads by now."""
    ask(service, Request([put(b"k")]))
    await turn()
    host.core.lease_until = host.clock.time
    refused = ask(service, Request([create(b"k")]))
    await turn()
    host.commit()
    assert refused.codes == [Code.UNAVAILABLE]


async def test_versions_grow_and_mismatches_say_what_is_there(host: FakeHost, service: Service) -> None:
    """Expected versions are compared exactly; 0 is a key that does not exist."""
    write = ask(service, Request([put(b"k", b"1", 0)]))
    await turn()
    host.commit()
    version = write.outcomes[0].version
    batch = ask(service, Request([put(b"k", b"2", version - 1), put(b"k", b"2", version), delete(b"k", version)]))
    await turn()
    host.commit()
    assert batch.codes == [Code.VERSION_MISMATCH, Code.OK, Code.VERSION_MISMATCH]
    assert batch.outcomes[0].version == version
    assert batch.outcomes[2].version == batch.outcomes[1].version > version


async def test_update_and_delete_need_the_key(host: FakeHost, service: Service) -> None:
    """NOT_FOUND otherwise, and nothing is written."""
    refused = ask(service, Request([(Kind.UPDATE, b"k", b"v", None), delete(b"k")]))
    await turn()
    assert refused.codes == [Code.NOT_FOUND, Code.NOT_FOUND]
    assert host.proposed == []


async def test_a_repeat_under_way_gets_the_same_answer(host: FakeHost, service: Service) -> None:
    """The batch is written once (rule 10)."""
    first = ask(service, Request([put(b"k")], pair=(CLIENT, 1)))
    again = ask(service, Request([put(b"k")], pair=(CLIENT, 1)))
    await turn()
    third = ask(service, Request([put(b"k")], pair=(CLIENT, 1)))
    await turn()
    host.commit()
    assert first.outcomes == again.outcomes == third.outcomes
    assert sum(r.type == RecordType.PUT for records in host.proposed for r in records) == 1


async def test_a_repeat_after_commit_gets_the_first_outcome(host: FakeHost, service: Service) -> None:
    """Whatever came after; a Get is read again."""
    request = Request([create(b"k", b"1"), get(b"other")], pair=(CLIENT, 1))
    first = ask(service, request)
    await turn()
    host.commit()
    ask(service, Request([delete(b"k"), put(b"other", b"x")]))
    await turn()
    host.commit()
    again = ask(service, request)
    assert again.outcomes[0] == first.outcomes[0]
    assert again.outcomes[1].value == b"x"
    assert ask(service, Request([get(b"k")])).codes == [Code.NOT_FOUND]


async def test_a_refused_batch_is_never_done_later(host: FakeHost, service: Service) -> None:
    """A repeat that was late on its way gets the refusal, though the condition holds by now."""
    ask(service, Request([put(b"k")]))
    await turn()
    host.commit()
    request = Request([create(b"k", b"2")], pair=(CLIENT, 1))
    first = ask(service, request)
    await turn()
    host.commit()
    ask(service, Request([delete(b"k")]))
    await turn()
    host.commit()
    again = ask(service, request)
    await turn()
    assert first.codes == again.codes == [Code.ALREADY_EXISTS]
    assert again.outcomes[0].version == first.outcomes[0].version
    assert ask(service, Request([get(b"k")])).codes == [Code.NOT_FOUND]


async def test_a_pair_of_another_batch_is_refused(host: FakeHost, service: Service) -> None:
    """Before and after its commit."""
    first = ask(service, Request([put(b"k")], pair=(CLIENT, 1)))
    longer = Request([put(b"k"), put(b"l")], pair=(CLIENT, 1))
    assert ask(service, longer).codes == [Code.INVALID_ARGUMENT] * 2
    await turn()
    host.commit()
    assert first.codes == [Code.OK]
    assert ask(service, longer).codes == [Code.INVALID_ARGUMENT] * 2


async def test_an_expired_repeat_has_an_unknown_outcome(host: FakeHost, service: Service) -> None:
    """By its age, or because its client's later batches took its place."""
    old = Request([put(b"k")], pair=(CLIENT, 1), age=DEDUPLICATION_WINDOW + 1)
    assert ask(service, old).codes == [Code.OUTCOME_UNKNOWN]
    for sequence in range(1, 1100):
        ask(service, Request([put(b"k")], pair=(CLIENT, sequence)))
    await turn()
    host.commit()
    assert ask(service, Request([put(b"k")], pair=(CLIENT, 1), age=1)).codes == [Code.OUTCOME_UNKNOWN]


async def test_a_get_whose_key_the_batch_wrote_is_not_read_again(host: FakeHost, service: Service) -> None:
    """A repeat would see the batch's own write."""
    request = Request([get(b"k"), put(b"k")], pair=(CLIENT, 1))
    ask(service, request)
    await turn()
    host.commit()
    assert ask(service, request).codes == [Code.UNAVAILABLE, Code.OK]


async def test_below_min_in_sync_writes_are_refused(host: FakeHost, service: Service) -> None:
    """Before they are begun; reads go on."""
    host.core.enough = False
    assert ask(service, Request([put(b"k")])).codes == [Code.TOO_FEW_REPLICAS]
    assert ask(service, Request([get(b"k")])).codes == [Code.NOT_FOUND]


async def test_committed_by_too_few_is_an_unknown_outcome(host: FakeHost, service: Service) -> None:
    """The size of the in-sync set is looked at again when acknowledging (rule 8)."""
    write = ask(service, Request([put(b"k")]))
    await turn()
    host.commit(enough=False)
    assert write.codes == [Code.OUTCOME_UNKNOWN]


async def test_stepping_down_leaves_what_is_proposed_unknown_and_refuses_the_rest(
    host: FakeHost, service: Service
) -> None:
    """What was only queued was certainly not done."""
    proposed = ask(service, Request([put(b"k")]))
    await turn()
    queued = ask(service, Request([put(b"l")]))
    host.core.role, host.core.accepting = Role.FOLLOWER, False
    service.role_changed(Role.FOLLOWER, 1)
    assert proposed.answers == [None]
    assert queued.codes == [Code.NOT_LEADER]
    await turn()
    assert len(host.proposed) == 1


async def test_what_was_in_flight_is_forgotten_at_stepping_down(host: FakeHost, service: Service) -> None:
    """A later leadership evaluates on what its log has."""
    ask(service, Request([create(b"k")], pair=(CLIENT, 1)))
    await turn()
    service.role_changed(Role.FOLLOWER, 1)
    host.store.flush()
    host.store.cut(0)
    host.core.end = replace(host.core.end, index=0)
    service.role_changed(Role.LEADER, 2)
    again = ask(service, Request([create(b"k")], pair=(CLIENT, 1)))
    await turn()
    host.commit()
    assert again.codes == [Code.OK]


async def test_what_comes_while_the_log_is_written_is_one_batch(host: FakeHost, service: Service) -> None:
    """It would only wait in the log's thread, and cost a frame and an acknowledgement each."""
    first = ask(service, Request([put(b"0")]))
    await turn()
    host.writing = True
    others = [ask(service, Request([put(b"%d" % i)])) for i in range(1, 4)]
    await turn()
    host.commit()
    await turn()
    assert first.codes == [Code.OK]
    assert len(host.proposed) == 1
    host.writing = False
    host.watcher.written()
    await turn()
    assert [len(records) for records in host.proposed] == [1, 3]
    host.commit()
    assert [one.codes for one in others] == [[Code.OK]] * 3


async def test_batches_under_way_are_bounded(host: FakeHost, service: Service) -> None:
    """The rest waits, and goes when one is committed."""
    for i in range(MAX_IN_FLIGHT + 2):
        ask(service, Request([put(b"%d" % i)]))
        await turn()
    assert len(host.proposed) == MAX_IN_FLIGHT
    host.commit(1)
    await turn()
    assert len(host.proposed) == MAX_IN_FLIGHT + 1
    assert len(host.proposed[-1]) == 2


async def test_waiting_requests_are_bounded_by_bytes(
    host: FakeHost, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond it a write is refused; room comes back with the answers."""
    monkeypatch.setattr(service_module, "MAX_QUEUED_BYTES", 100)
    ask(service, Request([put(b"k")], size=60))
    assert ask(service, Request([put(b"l")], size=60)).codes == [Code.RESOURCE_EXHAUSTED]
    await turn()
    host.commit()
    later = ask(service, Request([put(b"l")], size=60))
    await turn()
    host.commit()
    assert later.codes == [Code.OK]


async def test_past_its_deadline_nothing_is_begun(host: FakeHost, service: Service) -> None:
    """A request that waited too long is told so."""
    late = ask(service, Request([put(b"k")], deadline=host.clock.time + 1))
    host.clock.time += 2
    await turn()
    assert late.codes == [Code.DEADLINE_EXCEEDED]
    assert host.proposed == []


async def test_an_invalid_operation_does_not_harm_the_others(host: FakeHost, service: Service) -> None:
    """Each has its own outcome, in its place."""
    batch = ask(
        service,
        Request(
            [
                put(b""),
                put(b"k", b"1"),
                put(b"l", bytes(MAX_VALUE_BYTES + 1)),
                get(bytes(MAX_KEY_BYTES + 1)),
                (9, b"m", b"", None),
                (Kind.CREATE, b"n", b"", 5),
                get(b"k"),
            ],
            pair=(CLIENT, 1),
        ),
    )
    await turn()
    host.commit()
    bad = Code.INVALID_ARGUMENT
    assert batch.codes == [bad, Code.OK, bad, bad, bad, bad, Code.OK]
    assert batch.outcomes[6].value == b"1"


async def test_a_batch_of_invalid_operations_only_is_answered(service: Service) -> None:
    """Nothing is left to wait for."""
    assert ask(service, Request([put(b"")])).codes == [Code.INVALID_ARGUMENT]


async def test_keys_of_another_partition_refuse_the_whole_batch(host: FakeHost) -> None:
    """Nothing of it is done (the client sends it elsewhere)."""
    service = make_service(host, lambda: SlotMap.even(2))
    keys = [b"%d" % i for i in range(20)]
    assert set(ask(service, Request([put(k) for k in keys])).codes) == {Code.MOVED}
    await turn()
    assert host.proposed == []


async def test_a_repeat_of_what_was_done_before_its_slot_moved_gets_its_outcome(host: FakeHost) -> None:
    """It would be sent to the new owner otherwise, and be done there again."""
    now = SlotMap.even(1)
    service = make_service(host, lambda: now)
    request = Request([put(b"k")], pair=(b"c" * 16, 1))
    first = ask(service, request)
    await asyncio.sleep(0)
    host.commit()
    now = SlotMap.of_ranges(2, [(0, 16383, 1)])
    assert ask(service, request).outcomes == first.outcomes
    assert ask(service, replace(request, pair=(b"c" * 16, 2))).codes == [Code.MOVED]


async def test_what_no_one_could_do_is_told_before_where_it_belongs(host: FakeHost) -> None:
    """Sent on, it would only be refused there."""
    service = make_service(host, lambda: SlotMap.of_ranges(2, [(0, 16383, 1)]))
    assert ask(service, Request([put(b"k" * 5000)])).codes == [Code.INVALID_ARGUMENT]
    assert ask(service, Request([put(b"k" * 5000), put(b"k")])).codes == [Code.INVALID_ARGUMENT, Code.MOVED]


async def test_a_leader_cut_off_from_everything_settles_what_it_began_as_unknown(
    host: FakeHost, service: Service
) -> None:
    """And what it did not begin as not done; a repeat waits on, in case it is committed after all."""
    request = Request([put(b"k")], pair=(b"c" * 16, 1))
    begun = ask(service, request)
    await asyncio.sleep(0)
    host.clock.time += UNKNOWN_AFTER - 1
    service.expire()
    assert begun.waits
    host.clock.time += 1
    service.expire()
    assert begun.answers == [None]
    repeat = ask(service, request)
    assert repeat.waits
    host.commit()
    assert repeat.codes == [Code.OK]
    assert begun.answers == [None]
    assert len(host.proposed) == 1


async def test_without_a_map_nothing_is_done(host: FakeHost) -> None:
    """A node that just started says that it is not able yet."""
    service = make_service(host, lambda: None)
    assert ask(service, Request([put(b"k")])).codes == [Code.UNAVAILABLE]


async def test_linearizable_reads_need_the_lease(host: FakeHost, service: Service) -> None:
    """Without it a leader can't know what another one wrote."""
    host.core.lease_until = host.clock.time
    assert ask(service, Request([get(b"k")])).codes == [Code.UNAVAILABLE]
    host.core.role = Role.FOLLOWER
    assert ask(service, Request([get(b"k")])).codes == [Code.NOT_LEADER]


async def test_a_leader_long_without_a_lease_takes_no_writes(host: FakeHost, service: Service) -> None:
    """It is cut off from its followers, perhaps for ever: callers are told to look elsewhere."""
    host.core.lease_until = host.clock.time
    taken = ask(service, Request([put(b"k")]))
    host.clock.time += service_module.LEASE_GRACE + 0.1
    assert ask(service, Request([put(b"k")])).codes == [Code.UNAVAILABLE]
    await turn()
    assert taken.waits


async def test_a_part_of_a_compacted_log_is_not_served(host: FakeHost, service: Service) -> None:
    """Not even to who asks for no freshness at all (rule 14)."""
    host.core.role, host.core.lease_until, host.core.whole = Role.FOLLOWER, 0.0, False
    host.core.fresh_at = host.clock.time
    for mode in (ReadMode.ANY, ReadMode.BOUNDED):
        asked = ask(service, Request([get(b"k")], read_mode=mode, max_lag=5.0))
        assert asked.codes == [Code.UNAVAILABLE]
        assert "a part of its leader's log" in asked.outcomes[0].message
    host.core.whole = True
    assert ask(service, Request([get(b"k")], read_mode=ReadMode.ANY)).codes == [Code.NOT_FOUND]


async def test_bounded_reads_need_proof(host: FakeHost, service: Service) -> None:
    """From a follower: the age of its applied state is known and small enough."""
    host.core.role, host.core.lease_until = Role.FOLLOWER, float("-inf")
    request = Request([get(b"k")], read_mode=ReadMode.BOUNDED, max_lag=0.5)
    assert ask(service, request).codes == [Code.TOO_STALE]
    host.core.fresh_at = host.clock.time - 0.4
    assert ask(service, request).codes == [Code.NOT_FOUND]
    host.clock.time += 0.2
    assert ask(service, request).codes == [Code.TOO_STALE]


async def test_reads_of_any_age_need_what_the_session_saw(host: FakeHost, service: Service) -> None:
    """ANY is answered by whoever; with observed_version only by one that has it."""
    write = ask(service, Request([put(b"k")]))
    await turn()
    host.commit()
    seen = write.outcomes[0].version
    host.core.role, host.core.lease_until = Role.FOLLOWER, float("-inf")
    assert ask(service, Request([get(b"k")], read_mode=ReadMode.ANY)).codes == [Code.OK]
    assert ask(service, Request([get(b"k")], read_mode=ReadMode.ANY, observed=seen)).codes == [Code.OK]
    assert ask(service, Request([get(b"k")], read_mode=ReadMode.ANY, observed=seen + 1)).codes == [Code.TOO_STALE]


async def test_after_a_cut_the_highest_version_proves_nothing(host: FakeHost, service: Service) -> None:
    """What had it may be what was cut; a newer record proves that all before it is there."""
    first = ask(service, Request([put(b"k")]))
    await turn()
    host.commit()
    request = Request([get(b"k")], read_mode=ReadMode.ANY, observed=first.outcomes[0].version)
    host.core.role, host.core.lease_until = Role.FOLLOWER, float("-inf")
    host.cut_version = host.store.highest_version
    assert ask(service, request).codes == [Code.TOO_STALE]
    host.core.role, host.core.lease_until = Role.LEADER, float("inf")
    ask(service, Request([put(b"other")]))
    await turn()
    host.commit()
    host.core.role, host.core.lease_until = Role.FOLLOWER, float("-inf")
    assert ask(service, request).codes == [Code.OK]


async def test_an_observed_version_far_ahead_is_refused(host: FakeHost, service: Service) -> None:
    """A client's clock never drives ours (rule 18)."""
    observed = pack_version(1_000_000 + 2000, 0, 0)
    assert ask(service, Request([put(b"k")], observed=observed)).codes == [Code.INVALID_ARGUMENT]


async def test_what_a_leader_wrote_while_its_clock_was_ahead_can_be_read_and_followed(
    host: FakeHost, service: Service
) -> None:
    """The clock is set right; a session that saw the version reads on, at whoever has it, and writes on."""
    host.clock.wall += 86_400_000
    write = ask(service, Request([put(b"k")]))
    await turn()
    host.commit()
    seen = write.outcomes[0].version
    host.clock.wall -= 86_400_000

    after = ask(service, Request([put(b"k")], observed=seen))
    await turn()
    host.commit()
    assert after.codes == [Code.OK]
    assert after.outcomes[0].version > seen
    host.core.role, host.core.lease_until = Role.FOLLOWER, float("-inf")
    assert ask(service, Request([get(b"k")], read_mode=ReadMode.ANY, observed=seen)).codes == [Code.OK]
    behind = after.outcomes[0].version + 1  # of a write that this follower has not got yet
    assert ask(service, Request([get(b"k")], read_mode=ReadMode.ANY, observed=behind)).codes == [Code.TOO_STALE]


async def test_later_versions_are_above_the_observed(host: FakeHost, service: Service) -> None:
    """A writer's own order is that of its versions."""
    observed = pack_version(1_000_000 + 500, 3, 7)
    write = ask(service, Request([put(b"k")], observed=observed))
    await turn()
    host.commit()
    assert write.outcomes[0].version > observed


async def test_a_full_disk_refuses_writes_only(service: Service) -> None:
    """Reads go on."""
    service.disk_full = True
    assert ask(service, Request([put(b"k")])).codes == [Code.RESOURCE_EXHAUSTED]
    assert ask(service, Request([get(b"k")])).codes == [Code.NOT_FOUND]


async def test_long_answers_are_cut_short(host: FakeHost, service: Service) -> None:
    """A thousand Gets of a megabyte do not become a gigabyte in memory; in a batch with writes neither."""
    ask(service, Request([put(b"k", bytes(MAX_VALUE_BYTES))]))
    await turn()
    host.commit()
    fit = MAX_ANSWER_BYTES // MAX_VALUE_BYTES
    expected = [Code.OK] * fit + [Code.RESOURCE_EXHAUSTED] * (10 - fit)
    assert ask(service, Request([get(b"k")] * 10)).codes == expected
    mixed = ask(service, Request([*[get(b"k")] * 10, put(b"l")]))
    await turn()
    host.commit()
    assert mixed.codes == [*expected, Code.OK]


async def test_damage_is_told_and_makes_the_replica_go(
    host: FakeHost, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Get, and a condition, of a record that can't be read."""
    error = CorruptionError("log", 5, "wrong checksum")

    def broken(_key: bytes) -> None:
        raise error

    monkeypatch.setattr(host.store, "get", broken)
    assert ask(service, Request([get(b"k")])).codes == [Code.UNAVAILABLE]
    write = ask(service, Request([create(b"k"), put(b"l")]))
    await turn()
    host.commit()
    assert write.codes == [Code.UNAVAILABLE, Code.OK]
    assert host.damages == [error, error]


async def test_a_failed_replica_answers_nothing(host: FakeHost, service: Service) -> None:
    """Not even reads of any age."""
    host.core.role, host.core.accepting, host.core.lease_until = Role.FAILED, False, float("-inf")
    assert ask(service, Request([get(b"k")], read_mode=ReadMode.ANY)).codes == [Code.UNAVAILABLE]
    assert ask(service, Request([put(b"k")])).codes == [Code.NOT_LEADER]


async def test_a_defect_while_proposing_ends_the_process(
    host: FakeHost, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers would wait for an answer for ever otherwise."""
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))

    def broken(*_: object) -> None:
        raise RuntimeError("defect")

    monkeypatch.setattr(host, "propose", broken)
    ask(service, Request([put(b"k")]))
    await turn()
    assert [str(e) for e in host.died] == ["defect"]
    assert len(failures) == 1


async def test_call_gives_what_submit_answers(host: FakeHost, service: Service) -> None:
    """For one who awaits; stepping down is None."""
    waiting = asyncio.create_task(service.call(Request([put(b"k")])))
    await turn()
    service.role_changed(Role.FOLLOWER, 1)
    assert await waiting is None
    read = await service.call(Request([get(b"k")]))
    assert read is not None
    assert [o.code for o in read] == [Code.NOT_FOUND]
