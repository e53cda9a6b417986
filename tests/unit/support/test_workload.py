"""The load generator against a map in memory: what it records, and what its report finds."""

import asyncio
import time
from random import Random
from threading import Event

import pytest

from kvcommon.slotmap import SlotMap
from kvcommon.slots import slot_of
from tests.support.history import FAILED, UNKNOWN, Kind, Outcome, Result
from tests.support.workload import (
    Answer,
    BackgroundWorkload,
    Door,
    LoopThread,
    Plan,
    Timeline,
    Workload,
    contended_keys,
)

OWNERS = SlotMap.even(3).owners
PLAN = Plan(rate=3000)
EVERY_ANSWER = {Result.OK, Result.NOT_FOUND, Result.ALREADY_EXISTS, Result.VERSION_MISMATCH}


def partition_of(key: bytes) -> int:
    return OWNERS[slot_of(key)]


class Memory:
    """A correct store; every client's door is this one object."""

    def __init__(self) -> None:
        self.records: dict[bytes, tuple[bytes, int]] = {}
        self.version = 0
        self.refuse = False
        self.many = Event()  # set when version 1500 is reached and every kind of answer was given
        self.results: set[Result] = set()

    async def call(self, kind: Kind, key: bytes, value: bytes | None, expected_version: int | None) -> Answer:
        await asyncio.sleep(0.001)  # so that calls overlap, and what a caller has seen of a key may be outdated
        if self.refuse:
            return Answer(FAILED if kind is Kind.PUT else UNKNOWN, "told to")
        outcome = self.apply(kind, key, value, expected_version)
        self.results.add(outcome.result)
        if self.version >= 1500 and self.results >= EVERY_ANSWER:
            self.many.set()
        return Answer(outcome)

    def apply(self, kind: Kind, key: bytes, value: bytes | None, expected: int | None) -> Outcome:
        found = self.records.get(key)
        if found is None and kind in (Kind.UPDATE, Kind.DELETE):
            return Outcome(Result.NOT_FOUND)
        if kind is Kind.GET:
            return Outcome(Result.OK, found[1], found[0]) if found else Outcome(Result.NOT_FOUND)
        if kind is Kind.CREATE and found:
            return Outcome(Result.ALREADY_EXISTS, found[1])
        if expected is not None and expected != (found[1] if found else 0):
            return Outcome(Result.VERSION_MISMATCH, found[1] if found else 0)
        self.version += 1
        if kind is Kind.DELETE:
            del self.records[key]
        else:
            self.records[key] = (value or b"", self.version)
        return Outcome(Result.OK, self.version)

    async def close(self) -> None:
        pass


def background(door: Door, clients: int = 4) -> BackgroundWorkload:
    async def open_workload() -> Workload:
        keys = contended_keys(50, partition_of, range(3), "k")
        return Workload([door] * clients, keys, partition_of, plan=PLAN, rng=Random(1))

    return BackgroundWorkload(open_workload)


def test_a_correct_store_passes_with_every_kind_of_answer_seen() -> None:
    store = Memory()
    with background(store) as load:
        assert store.many.wait(30)
        report = load.finish()
    assert report.faults() == []
    assert {operation.outcome.result for operation in report.history} >= EVERY_ANSWER
    assert not report.troubles
    assert set(report.timeline.acknowledged) == {0, 1, 2}


def test_a_store_that_forgets_an_acknowledged_write_is_found_out() -> None:
    class Forgetful(Memory):
        forgot = False

        def apply(self, kind: Kind, key: bytes, value: bytes | None, expected: int | None) -> Outcome:
            before = self.records.get(key)
            outcome = super().apply(kind, key, value, expected)
            if before and kind is Kind.PUT and outcome.result is Result.OK and self.version % 20 == 0:
                self.records[key] = before
                self.forgot = True
            return outcome

    store = Forgetful()
    with background(store) as load:
        assert store.many.wait(30)
        report = load.finish()
    assert store.forgot
    assert report.faults()


def test_keys_that_are_not_where_they_are_read_in_between_are_found_out() -> None:
    """As when a cluster is made again, and what it has taken up is not all."""
    store = Memory()
    with background(store) as load:
        assert store.many.wait(30)
        LoopThread.shared().run(load.workload.settle(Memory()))
        report = load.finish()
    assert report.faults()


def test_refusals_and_unknown_outcomes_are_troubles_and_never_lost_writes() -> None:
    store = Memory()
    with background(store) as load:
        assert store.many.wait(30)
        store.refuse = True
        while not {t.result for t in load.workload.troubles} >= {Result.FAILED, Result.UNKNOWN}:
            time.sleep(0.01)
        store.refuse = False
        report = load.finish()
    assert {trouble.result for trouble in report.troubles} == {Result.FAILED, Result.UNKNOWN}
    assert report.faults() == []


def test_a_gap_is_measured_from_the_acknowledgement_before_it() -> None:
    timeline = Timeline()
    timeline.acknowledged[0] += [1.0, 1.5, 4.0, 4.1]
    assert timeline.gap(0, 2.0, 4.2) == pytest.approx(2.5)
    assert timeline.gap(0, 2.0, 3.0) == pytest.approx(1.5)
    assert timeline.gap(0, 0.5, 1.2) == pytest.approx(0.5)
    assert timeline.gap(1, 2.0, 5.0) == pytest.approx(3.0)
    assert timeline.rate(1.0, 5.0) == pytest.approx(1.0)


def test_a_gap_of_others_leaves_out_what_the_load_itself_stood_still() -> None:
    timeline = Timeline()
    timeline.acknowledged[0] += [1.0, 1.5, 4.0, 4.5, 6.0]
    timeline.stalls += [(0.2, 0.4), (1.4, 1.7), (2.0, 3.5), (4.6, 4.7)]
    assert timeline.stood_still(1.5, 4.0) == pytest.approx(1.7)
    assert timeline.gap_of_others(0, 1.0, 4.5) == pytest.approx(0.8)
    assert timeline.gap_of_others(0, 1.0, 6.0) == pytest.approx(1.4)


async def test_a_load_notices_that_it_stood_still() -> None:
    """The clock jumps between two looks at it, as it does for a process that got no processor."""
    lost, stop = 0.0, asyncio.Event()

    class Stalling(Memory):
        async def call(self, kind: Kind, key: bytes, value: bytes | None, expected_version: int | None) -> Answer:
            nonlocal lost
            lost = 5.0
            if load.timeline.stalls:
                stop.set()
            return await super().call(kind, key, value, expected_version)

    keys = contended_keys(3, partition_of, range(3), "key")
    load = Workload([Stalling()], keys, partition_of, plan=PLAN, rng=Random(1), clock=lambda: time.monotonic() + lost)
    await load.run(stop)
    began, ended = max(load.timeline.stalls, key=lambda stall: stall[1] - stall[0])
    assert ended - began >= 4.9


def test_what_ends_the_load_reaches_the_test() -> None:
    async def open_workload() -> Workload:
        raise ConnectionError("nobody there")

    with pytest.raises(ConnectionError, match="nobody there"), BackgroundWorkload(open_workload):
        pass
