"""A soak keeps what fails, says how far it is, and ends when it is told to."""

import json
import os
import re
import signal
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from kvnode.service import Service
from tests.simulation.run import simulate
from tests.simulation.schedule import Options
from tests.simulation.soak import soak


def _forget_repeats(*_: object) -> bool:
    """A service that does a repeat of (client, sequence) again (rule 10)."""
    return False


def test_what_fails_is_kept_in_words_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line with the command at once, then the shrunk run; the end says how much was tried and how often it failed."""
    monkeypatch.setattr(Service, "_answer_repeat", _forget_repeats)
    failing = next(seed for seed in range(20) if simulate(Options(seed)).failure is not None)
    totals = soak(iter([range(failing, failing + 1)]), tmp_path / "kept", processes=1, every=0.01)
    assert (totals.seeds, totals.failures) == (1, 1)
    assert totals.operations > 0

    (kept,) = map(json.loads, (tmp_path / "kept" / "failures.jsonl").read_text().splitlines())
    assert kept["command"] == Options(failing).command
    assert "invariant 14" in kept["failure"]
    (words,), (picture,) = (
        list((tmp_path / "kept").glob(f"core-{failing}-3-replicas.{kind}")) for kind in ("txt", "html")
    )
    assert words.read_text().startswith(f"found by: {kept['command']}\n\nBROKEN: invariant 14")
    assert "--requests" in words.read_text(), "it was shrunk"
    assert "<svg" in picture.read_text()

    told = capsys.readouterr().out
    assert f"FAILED {kept['failure'][:300]}\n    {kept['command']}" in told
    assert re.search(r"^ +\d+ s  0 seeds  0 operations", told, re.MULTILINE), "progress"
    assert re.search(r"^ended: .* 1 seeds  \d+ operations  \d+ faults  .* 1 failures$", told, re.MULTILINE)


def _stumble(*_: object) -> None:
    raise ZeroDivisionError("not one of the checks")


def test_what_raises_outside_of_the_checks_is_kept_and_the_soak_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the seed's command, and where it was raised; the seeds behind it are tried."""
    monkeypatch.setattr("tests.simulation.cluster.check_log", _stumble)
    totals = soak(iter([range(2), range(2, 3)]), tmp_path, processes=1, every=60.0)
    assert (totals.seeds, totals.failures) == (3, 3)
    kept = [json.loads(line) for line in (tmp_path / "failures.jsonl").read_text().splitlines()]
    assert [k["command"] for k in kept] == [Options(seed).command for seed in range(3)]
    words = (tmp_path / "core-0-3-replicas.txt").read_text()
    assert "BROKEN: the code raised ZeroDivisionError: not one of the checks" in words
    assert "in _stumble: raise ZeroDivisionError" in words


def test_a_failure_that_cannot_be_drawn_is_kept_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tools that show a failure don't end a soak that found one."""
    monkeypatch.setattr(Service, "_answer_repeat", _forget_repeats)
    monkeypatch.setattr("tests.simulation.soak.draw", _stumble)
    totals = soak(iter([range(1)]), tmp_path, processes=1, every=60.0)
    assert (totals.seeds, totals.failures) == (1, 1)
    (words,) = tmp_path.glob("*.txt")
    assert "invariant 14" in words.read_text()
    assert "It can't be shrunk or drawn: ZeroDivisionError" in words.read_text()


def test_it_ends_when_it_is_told_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is under way is finished, and the signal then does what it did before."""
    begun: list[int] = []

    def chunks() -> Iterator[range]:
        for seed in count():
            begun.append(seed)
            if seed == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            yield range(seed, seed + 1)

    before = signal.getsignal(signal.SIGTERM)
    totals = soak(chunks(), tmp_path, processes=1, every=60.0)
    assert totals.seeds == len(begun) == 4
    assert totals.failures == 0
    assert list(tmp_path.iterdir()) == []
    assert "ended: " in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) is before
