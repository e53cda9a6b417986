"""Whose disk is too slow to lead, and when a leader hands over for it."""

from kvcoord.contract import ReplicaId
from kvnode.core.pace import SETTLED, SUSTAINED, Paces

A, B, C = (ReplicaId(pod, "1") for pod in "abc")
ALL = (A, B, C)


def load(paces: Paces, now: float, seconds: float, takes: dict[ReplicaId, float]) -> float:
    """Ten writes a second, judged as they come; the time afterwards."""
    for _ in range(int(seconds * 10)):
        now += 0.1
        for replica, took in takes.items():
            paces.add(replica, took, now)
        paces.judge(ALL, now)
    return now


def test_slow_is_who_takes_four_times_as_long_for_a_while() -> None:
    """Not at once."""
    paces = Paces(0.0)
    now = load(paces, 0.0, SUSTAINED - 2, {A: 0.3, B: 0.01, C: 0.02})
    assert paces.slow == set()
    load(paces, now, 5, {A: 0.3, B: 0.01, C: 0.02})
    assert paces.slow == {A}
    assert paces.last(ALL) == (B, C, A)


def test_small_times_are_never_slow() -> None:
    """Four times a millisecond is no trouble."""
    paces = Paces(0.0)
    load(paces, 0.0, 30, {A: 0.04, B: 0.001})
    assert paces.slow == set()


def test_slow_ends_only_well_below_where_it_begins() -> None:
    """So that a disk at the border does not make the order change again and again."""
    paces = Paces(0.0)
    now = load(paces, 0.0, 20, {A: 0.5, B: 0.1})
    assert paces.slow == {A}
    now = load(paces, now, 20, {A: 0.3, B: 0.1})
    assert paces.slow == {A}
    load(paces, now, 20, {A: 0.15, B: 0.1})
    assert paces.slow == set()


def test_what_was_measured_long_ago_says_nothing() -> None:
    """While nobody writes, nobody becomes slow."""
    paces = Paces(0.0)
    now = load(paces, 0.0, 5, {A: 0.5, B: 0.1})
    for second in range(60):
        paces.judge(ALL, now + second)
    assert paces.slow == set()


def test_a_leader_hands_over_once_in_half_a_minute() -> None:
    """And only if another's disk is better."""
    paces = Paces(0.0)
    now = load(paces, 0.0, 20, {A: 0.5, B: 0.01})
    assert not paces.should_hand_over(A, ALL, now)
    now = load(paces, now, SETTLED - 20 + 1, {A: 0.5, B: 0.01})
    assert not paces.should_hand_over(B, ALL, now)
    assert not paces.should_hand_over(A, (A,), now)
    now = load(paces, now, 20, {A: 0.5, B: 0.01})
    assert paces.should_hand_over(A, ALL, now)
    assert not paces.should_hand_over(A, ALL, now + 1)


def test_the_leaders_own_writes_are_timed_until_they_are_durable() -> None:
    """Several may become durable at once."""
    paces = Paces(0.0)
    paces.began(5, 1.0)
    paces.began(6, 1.5)
    paces.began(7, 2.0)
    paces.done(A, 6, 3.0)
    assert (paces.paces[A].samples, paces.paces[A].mean) == (2, 1.75)


def test_a_leader_that_can_be_spared_hands_over_when_it_has_led_for_a_while() -> None:
    """And tries again only after as long: who was told to go may not reach coordination."""
    paces = Paces(0.0)
    assert not paces.should_hand_over(A, ALL, SETTLED - 0.1, spared=True)
    assert paces.should_hand_over(A, ALL, SETTLED, spared=True)
    assert not paces.should_hand_over(A, ALL, SETTLED + 1, spared=True)
    assert paces.should_hand_over(A, ALL, 2 * SETTLED, spared=True)
