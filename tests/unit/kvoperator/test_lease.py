import asyncio
from datetime import UTC, datetime

import pytest

from kvoperator.kube import KubeError
from kvoperator.lease import LEASE_NAME, LeaseHolder, LeaseTimes
from tests.unit.kvoperator.api import MemoryKube

TIMES = LeaseTimes(duration=15, renew=0.01, give_up=0.05, ask=0.001)


class HandClock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def now(self) -> float:
        return self.seconds

    def wall_ms(self) -> int:
        return 0


class RealClock(HandClock):
    def now(self) -> float:
        return asyncio.get_running_loop().time()


def holder(kube: MemoryKube, name: str, clock: HandClock) -> LeaseHolder:
    return LeaseHolder(kube, "ns", name, clock=clock, wall=lambda: datetime(2026, 11, 21, tzinfo=UTC), times=TIMES)


def held_by(kube: MemoryKube) -> str:
    return str(kube.objects["Lease", "ns", LEASE_NAME]["spec"]["holderIdentity"])


async def asked(kube: MemoryKube, times: int = 3) -> None:
    """Until the waiter has looked a few times more."""
    seen = len(kube.calls)
    await kube.until(lambda: len(kube.calls) >= seen + times)


async def test_the_first_takes_it_and_the_second_waits() -> None:
    kube, clock = MemoryKube(), HandClock()
    await holder(kube, "a", clock).acquire()
    waiting = asyncio.create_task(holder(kube, "b", clock).acquire())
    await asked(kube)

    assert held_by(kube) == "a"
    assert not waiting.done()
    waiting.cancel()


async def test_a_released_lease_is_taken_at_once() -> None:
    kube, clock = MemoryKube(), HandClock()
    first = holder(kube, "a", clock)
    await first.acquire()
    waiting = asyncio.create_task(holder(kube, "b", clock).acquire())
    await asked(kube)
    await first.release()
    await asyncio.wait_for(waiting, 5)

    assert held_by(kube) == "b"
    assert kube.objects["Lease", "ns", LEASE_NAME]["spec"]["leaseTransitions"] == 1


async def test_a_silent_holder_is_given_up_on_by_the_waiters_own_clock() -> None:
    kube, clock = MemoryKube(), HandClock()
    await holder(kube, "a", HandClock()).acquire()
    waiting = asyncio.create_task(holder(kube, "b", clock).acquire())
    await asked(kube)
    clock.seconds += 14
    await asked(kube)
    assert not waiting.done()

    clock.seconds += 2
    await asyncio.wait_for(waiting, 5)
    assert held_by(kube) == "b"


async def test_a_holder_that_renews_is_never_given_up_on() -> None:
    kube, clock = MemoryKube(), HandClock()
    first = holder(kube, "a", HandClock())
    await first.acquire()
    waiting = asyncio.create_task(holder(kube, "b", clock).acquire())
    for turn in range(5):
        clock.seconds += 14
        lease = kube.objects["Lease", "ns", LEASE_NAME]
        kube.put("Lease", LEASE_NAME, {**lease, "spec": {**lease["spec"], "renewTime": f"turn {turn}"}})
        await asked(kube)

    assert not waiting.done()
    waiting.cancel()


async def test_who_finds_another_in_its_place_stops() -> None:
    kube, clock = MemoryKube(), RealClock()
    first = holder(kube, "a", clock)
    await first.acquire()
    keeping = asyncio.create_task(first.keep())
    lease = kube.objects["Lease", "ns", LEASE_NAME]
    kube.put("Lease", LEASE_NAME, {**lease, "spec": {**lease["spec"], "holderIdentity": "b"}})
    await asyncio.wait_for(keeping, 5)

    assert first.holder == "b"


async def test_who_can_not_renew_stops_before_another_may_begin() -> None:
    kube, clock = MemoryKube(), RealClock()
    first = holder(kube, "a", clock)
    await first.acquire()

    def away(method: str, path: str) -> None:
        raise KubeError(0, "the API server can't be reached")

    kube.before_call = away
    began = clock.now()
    await asyncio.wait_for(first.keep(), 5)

    assert TIMES.give_up <= clock.now() - began < TIMES.duration


async def test_an_api_server_that_is_away_for_a_moment_costs_nothing() -> None:
    kube, clock = MemoryKube(), RealClock()
    first = holder(kube, "a", clock)
    await first.acquire()
    failures = 0

    def once(method: str, path: str) -> None:
        nonlocal failures
        failures += 1
        if failures == 1:
            raise KubeError(500, "etcd has no leader")

    kube.before_call = once
    keeping = asyncio.create_task(first.keep())
    await asked(kube, 4)
    assert not keeping.done()
    keeping.cancel()


async def test_of_two_that_find_none_one_gets_it() -> None:
    kube, clock = MemoryKube(), HandClock()
    both = [asyncio.create_task(holder(kube, name, clock).acquire()) for name in ("a", "b")]
    done, waiting = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    await asked(kube)

    assert (len(done), len(waiting)) == (1, 1)
    for task in waiting:
        task.cancel()


def test_a_holder_gives_up_before_its_lease_ends() -> None:
    times = LeaseTimes()

    assert times.renew < times.give_up < times.duration - times.ask


async def test_only_the_holder_releases() -> None:
    kube, clock = MemoryKube(), HandClock()
    await holder(kube, "a", clock).acquire()
    await holder(kube, "b", clock).release()

    assert held_by(kube) == "a"


@pytest.mark.parametrize("spec", [None, {}, {"holderIdentity": None}])
async def test_a_lease_that_names_nobody_is_free(spec: object) -> None:
    kube, clock = MemoryKube(), HandClock()
    kube.put("Lease", LEASE_NAME, {"metadata": {}, "spec": spec})
    await asyncio.wait_for(holder(kube, "a", clock).acquire(), 5)

    assert held_by(kube) == "a"
