"""Hundreds of seeds, each a small cluster with its own troubles; see docs/correctness.md."""

import pytest

from tests.simulation.run import simulate
from tests.simulation.schedule import Options
from tests.simulation.trying import told_twice, try_seed

CHUNK = 10
CASES = [(3, first) for first in range(0, 200, CHUNK)]
CASES += [(2, first) for first in range(1000, 1060, CHUNK)]
CASES += [(5, first) for first in range(2000, 2040, CHUNK)]


@pytest.mark.parametrize(("replicas", "first"), CASES)
def test_every_invariant_holds_whatever_fails(replicas: int, first: int) -> None:
    """A failing seed gives the command that replays it, and the end of its timeline."""
    for seed in range(first, first + CHUNK):
        assert try_seed(Options(seed, replicas)).served > 0


def test_a_seed_always_gives_the_same_run() -> None:
    """Else a failure could not be replayed: not in another process either, where sets have another order."""
    one, other = told_twice("--seed", "7", "--details")
    assert one == other


def test_seeds_try_every_kind_of_fault_and_the_faults_bite() -> None:
    """Load without faults proves nothing: leaders change, logs are cut, replicas are rebuilt, hand-overs happen."""
    counts: dict[str, int] = {}
    for seed in range(3000, 3045):
        report = simulate(Options(seed))
        assert report.failure is None, report.options.command
        for what, number in report.counts.items():
            counts[what] = counts.get(what, 0) + number
    assert [what for what in counts if what.startswith("fault ") and not counts[what]] == []
    assert "fault claim_in_doubt" in counts, "rare kinds, too"
    for what in ("old copies of leaders", "old copies in sync", "gives way"):
        assert counts[what] > 2, counts
    for what in ("epochs", "claims", "cuts", "rebuilds", "hand-overs", "in-sync changes", "acknowledged", "read"):
        assert counts[what] > 5, counts
    for what in ("pods taken away", "replicas added", "replicas removed, in sync", "replicas removed, leading"):
        assert counts[what] > 2, counts
