"""The simulation notices a broken core; docs/correctness.md has the figures for more seeds."""

from pathlib import Path

import pytest

from tests.simulation.mutants import is_rare, patches, try_mutant


@pytest.mark.parametrize("patch", [p for p in patches() if not is_rare(p)], ids=lambda p: p.stem)
def test_mutant_is_caught(patch: Path) -> None:
    assert try_mutant(patch, "0..150", 3, stop=True).caught == 1


@pytest.mark.parametrize("patch", [p for p in patches() if is_rare(p)], ids=lambda p: p.stem)
def test_mutant_that_needs_rare_timing_still_fits_the_core(patch: Path) -> None:
    assert try_mutant(patch, "0..2", 3, stop=True).seeds > 0
