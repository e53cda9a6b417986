"""The checks notice broken code; docs/correctness.md has the figures for more seeds."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.simulation.mutants import Mutant, check_fits, mutants, show, try_mutant
from tests.simulation.mutants.__main__ import main


@pytest.mark.parametrize("mutant", [m for m in mutants() if m.quick], ids=lambda m: m.name)
def test_mutant_is_caught(mutant: Mutant) -> None:
    """In one of the seeds, or by the test, that its patch names."""
    assert try_mutant(mutant).caught


@pytest.mark.parametrize("mutant", [m for m in mutants() if not m.quick], ids=lambda m: m.name)
def test_mutant_that_takes_long_to_catch_still_fits_the_code(mutant: Mutant) -> None:
    """Whether it is caught is for `make mutants`."""
    check_fits(mutant)


def test_the_run_that_catches_a_mutant_is_shown_and_drawn(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What it changes, then its run, shrunk: with the command that shows it again, as its seed's own runs good code."""
    (mutant,) = (m for m in mutants() if m.name == "no_deduplication")
    picture = tmp_path / "run.html"
    assert show(mutant, html=picture)
    shown, progress = capfd.readouterr()
    assert shown.startswith(f"MUTANT: {mutant.breaks}\n")
    assert "\n--- a/kvnode/service.py\n" in shown
    assert "\nBROKEN: invariant 14 (" in shown
    assert "shrunk from " in progress
    again = ".venv/bin/python -m tests.simulation.mutants no_deduplication --show"
    assert f"SEE IT AGAIN\n  {again}\n" in shown
    assert "--seed" not in shown
    assert again in picture.read_text()
    assert 'id="breach"' in picture.read_text()


def test_what_the_test_says_that_catches_a_mutant_is_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Where no seed is to catch it."""
    fails = tmp_path / "test_fails.py"
    fails.write_text("def test_fails():\n    raise AssertionError('it is broken')\n")
    assert show(replace(mutants()[0], catcher=str(fails)))
    assert "AssertionError: it is broken" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nobody"], "there is no mutant 'nobody'; there are ack_before_fsync, "),
        (["--show"], "--show takes the name of one mutant"),
        (["no_deduplication", "--html", "f"], "--html takes --show"),
    ],
)
def test_what_makes_no_sense_is_refused(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By name, before anything is tried."""
    monkeypatch.setattr("sys.argv", ["mutants", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert said in capsys.readouterr().err


def test_a_mutant_that_only_raises_is_not_caught_by_a_check(tmp_path: Path) -> None:
    """As one does that calls what has another signature by now: it must be made anew."""
    (mutant,) = (m for m in mutants() if m.name == "leader_resumes_epoch")
    stale = tmp_path / mutant.patch.name
    stale.write_text(mutant.patch.read_text().replace("self._lead(state, None, now)", "self._lead(state, now)"))
    with pytest.raises(RuntimeError, match="only raises"):
        try_mutant(replace(mutant, patch=stale))


def test_what_fails_on_the_unbroken_code_too_catches_nothing(tmp_path: Path) -> None:
    """A patch, or an environment, in which nothing runs is no mutant that was caught."""
    fails = tmp_path / "test_fails.py"
    fails.write_text("def test_fails():\n    raise AssertionError\n")
    mutant = replace(mutants()[0], catcher=str(fails))
    with pytest.raises(RuntimeError, match="the unbroken code fails, too"):
        try_mutant(mutant)
