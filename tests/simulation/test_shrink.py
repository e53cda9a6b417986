"""A failing run is made short, told in words, and drawn."""

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from kvnode.service import Service
from tests.simulation.explain import explain
from tests.simulation.report import Report
from tests.simulation.run import simulate
from tests.simulation.schedule import CALM, Asked, Options, parse_faults, parse_requests
from tests.simulation.shrink import reduce, shrink


def _forget_repeats(*_: object) -> bool:
    """A service that does a repeat of (client, sequence) again (rule 10)."""
    return False


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Report:
    """A run of a broken service that fails."""
    monkeypatch.setattr(Service, "_answer_repeat", _forget_repeats)
    report = next(r for r in (simulate(Options(seed)) for seed in range(50)) if r.failure is not None)
    assert report.failure is not None
    assert report.failure.invariant == 14
    return report


def test_a_failing_run_shrinks_to_a_few_faults_and_requests(failing: Report) -> None:
    """What is left breaks the same invariant, and nearly all of the rest is gone."""
    shrunk = shrink(failing)
    assert shrunk.failure is not None
    assert shrunk.failure.invariant == 14
    assert len(shrunk.requests) <= 3 < len(failing.requests)
    assert len(shrunk.faults) <= 3


def test_the_printed_command_of_a_shrunk_run_replays_it(failing: Report) -> None:
    """Its faults and requests are read back from the words that the command gives."""
    shrunk = shrink(failing)
    found = re.search(r"--faults (\S+) --requests (\S+)", shrunk.options.command)
    assert found is not None
    again = simulate(replace(shrunk.options, faults=parse_faults(found[1]), requests=parse_requests(found[2])))
    assert again.failure == shrunk.failure
    assert again.requests == shrunk.requests


def test_a_failing_whole_cluster_shrinks_and_its_command_replays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the same failure, at the same time, after the same faults and requests."""
    monkeypatch.setattr(Service, "_answer_repeat", _forget_repeats)
    runs = (simulate(Options(seed, seconds=3.0, world="whole")) for seed in range(23, 60))
    report = next(r for r in runs if r.failure is not None)
    assert report.failure is not None
    assert report.failure.invariant == 14
    shrunk = shrink(report)
    assert len(shrunk.requests) <= 3 < len(report.requests)
    assert len(shrunk.faults) <= 3
    found = re.search(r"--world whole .*--faults (\S+) --requests (\S+)", shrunk.options.command)
    assert found is not None
    again = simulate(replace(shrunk.options, faults=parse_faults(found[1]), requests=parse_requests(found[2])))
    assert again == shrunk


def test_a_request_that_comes_too_late_is_not_asked() -> None:
    """When shrinking has taken time away: what is written behind the last reads would look like a write that is lost."""
    requests = (Asked(3, 26, 0.45), Asked(3, 30, 6.55))
    late = Options(52, seconds=0, world="whole", calm=frozenset(CALM), faults=frozenset(), requests=requests)
    report = simulate(late)
    assert report.failure is None
    assert report.requests == requests[:1]


def test_a_shrunk_run_names_no_fault_that_does_not_strike(failing: Report) -> None:
    """In the command that replays it."""
    shrunk = shrink(failing)
    assert shrunk.options.faults == frozenset(s.number for s in shrunk.faults)


def test_the_explicit_lists_of_a_run_give_the_same_run() -> None:
    """Faults and requests that were recorded replace those that the seed gives, with nothing changed."""
    report = simulate(Options(11, seconds=4.0))
    faults = frozenset(s.number for s in report.faults)
    again = simulate(replace(report.options, faults=faults))
    assert again == replace(report, options=again.options)


def test_a_failing_run_is_told_with_a_headline_and_columns(failing: Report) -> None:
    """What went wrong, who did what, the command, then who, when, what, epoch and index."""
    text = explain(simulate(replace(failing.options, verbose=True)))
    assert text.startswith("BROKEN: invariant 14 (a (client, sequence) takes effect once)\n  log at ")
    assert failing.options.command in text
    assert re.search(r"when +who +epoch +index +what", text)
    assert re.search(r"\n +[\d.]+ +p\d-r\d+ +1 +\d+ +commits to \d+", text)


def test_delta_debugging_keeps_exactly_what_the_failure_needs() -> None:
    """Two of forty that only fail together."""

    def fails(kept: Sequence[int]) -> bool:
        return {7, 31} <= set(kept)

    assert reduce(list(range(40)), fails) == [7, 31]


def test_requests_and_faults_are_read_as_they_are_written() -> None:
    """Times keep all their digits."""
    requests = (Asked(0, 14, 0.7633626433148584), Asked(3, 2, 11.25))
    assert parse_requests(",".join(map(str, requests))) == requests
    assert parse_requests("none") == ()
    assert parse_faults("7,3") == {3, 7}
    assert parse_faults("none") == frozenset()
