"""The checks notice broken code; docs/correctness.md has the figures for more seeds."""

from dataclasses import replace
from pathlib import Path

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


def test_what_fails_on_the_unbroken_code_too_catches_nothing(tmp_path: Path) -> None:
    """A patch, or an environment, in which nothing runs is no mutant that was caught."""
    fails = tmp_path / "test_fails.py"
    fails.write_text("def test_fails():\n    raise AssertionError\n")
    mutant = replace(mutants()[0], catcher=str(fails))
    with pytest.raises(RuntimeError, match="the unbroken code fails, too"):
        try_mutant(mutant)
