"""How long single writes are gathered for a batch."""

from hypothesis import given
from hypothesis import strategies as st

from kvnode.gathering import ENOUGH, MOST_TURNS, QUIET_TURNS, Gathering


def turns(gathering: Gathering, *counts: int) -> list[bool]:
    """What is said in turns that bring so many writes each."""
    said = []
    for count in counts:
        gathering.came(count)
        said.append(gathering.goes_on())
    return said


def test_who_writes_alone_does_not_wait() -> None:
    """However often."""
    assert turns(Gathering(), 1, 1, 0, 1) == [False] * 4


def test_several_wait_until_turns_bring_no_more() -> None:
    """And each turn that brings one begins the count of quiet ones anew."""
    assert turns(Gathering(), 3, 0, 2, 0, 0) == [True, True, True, True, False]


def test_who_comes_first_of_those_that_came_together_waits_for_the_others() -> None:
    """Once in vain: then it is alone."""
    gathering = Gathering()
    assert turns(gathering, 2, 0, 0) == [True, True, False]
    assert turns(gathering, 1, 1, 0, 0) == [True, True, True, False]
    assert turns(gathering, 1, 0, 0) == [True, True, False]
    assert turns(gathering, 1) == [False]


def test_a_large_batch_waits_no_longer() -> None:
    """Whether it came at once or little by little."""
    assert turns(Gathering(), ENOUGH) == [False]
    assert turns(Gathering(), ENOUGH // 2, ENOUGH // 2) == [True, False]


@given(st.lists(st.integers(0, 3), min_size=MOST_TURNS + 1, max_size=100))
def test_every_batch_ends(counts: list[int]) -> None:
    """After MOST_TURNS at the latest, or QUIET_TURNS without a write; whatever was before it."""
    waited = quiet = 0
    for count, goes_on in zip(counts, turns(Gathering(), *counts), strict=True):
        quiet = 0 if count else quiet + 1
        if goes_on:
            waited += 1
            assert waited <= MOST_TURNS
            assert quiet < QUIET_TURNS
        else:
            waited = quiet = 0
