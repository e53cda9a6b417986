"""Small configurations in every order; docs/correctness.md has the figures of longer runs."""

import pytest

from kvnode.core.following import NEVER
from kvnode.core.replica import Replica
from tests.simulation.explore.parts import Bounds
from tests.simulation.explore.search import explore, settled
from tests.simulation.explore.states import Shelf, freeze


@pytest.mark.parametrize(("replicas", "depth"), [(2, 6), (3, 6)])
def test_every_order_of_what_can_happen_next_keeps_the_invariants(replicas: int, depth: int) -> None:
    """From a partition that serves: messages, flushes, compare-and-sets, deaths, time, in every order."""
    found = explore(settled(replicas, Bounds()), depth)
    assert not found.broken, "\n".join((found.broken, *found.way))
    assert found.states > 5000


@pytest.mark.parametrize("replicas", [2, 3])
def test_one_deviation_anywhere_in_a_long_run_keeps_the_invariants(replicas: int) -> None:
    """To the end of all that can happen, with one action out of its usual order at any place."""
    found = explore(settled(replicas, Bounds(writes=2)), 200, deviations=1)
    assert not found.broken, "\n".join((found.broken, *found.way))
    assert found.per_depth[-1] == 0, "the run was not explored to its end"


def test_a_broken_core_is_found_with_the_way_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower that claims without waiting for its promise to run out: two leases, told action by action."""
    start = settled(2, Bounds())
    monkeypatch.setattr(Replica, "_claim_time", lambda *_: NEVER)
    found = explore(start, 60, deviations=1)
    assert "invariant" in found.broken
    assert any("asks for epoch 2" in line for line in found.way)
    assert found.way[-1].endswith(found.broken.removeprefix("BrokenError: "))


def test_what_comes_of_a_state_leaves_it_as_it_was() -> None:
    """States share the nodes that an action does not touch: none is changed under another."""
    shelf, frontier = Shelf(), [settled(3, Bounds(breaks=1))]
    for _ in range(3):
        following = []
        for here in frontier:
            before = freeze(vars(here))
            for action in here.actions():
                world = shelf.branch(here, action)
                world.do(action)
                assert freeze(vars(here)) == before, action
                following.append(world)
        frontier = following
