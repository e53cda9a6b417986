"""The checks notice broken code; docs/correctness.md has the figures for more seeds."""

import pytest

from tests.simulation.mutants import Mutant, check_fits, mutants, try_mutant


@pytest.mark.parametrize("mutant", [m for m in mutants() if m.quick], ids=lambda m: m.name)
def test_mutant_is_caught(mutant: Mutant) -> None:
    """In one of the seeds, or by the test, that its patch names."""
    assert try_mutant(mutant).caught


@pytest.mark.parametrize("mutant", [m for m in mutants() if not m.quick], ids=lambda m: m.name)
def test_mutant_that_takes_long_to_catch_still_fits_the_code(mutant: Mutant) -> None:
    """Whether it is caught is for `make mutants`."""
    check_fits(mutant)
