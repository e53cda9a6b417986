"""A run is drawn for a reader."""

import re
from dataclasses import replace

import pytest

from kvnode.service import Service
from tests.simulation.picture import DOTS, draw
from tests.simulation.run import simulate
from tests.simulation.schedule import Options
from tests.simulation.timeline import Mark


def test_a_run_is_drawn_into_one_file_without_outside_resources() -> None:
    """A lane for each pod, every message with an arrow, and the words."""
    page = draw(simulate(Options(3, seconds=2.0, verbose=True)))
    assert page.count('class="head"') >= 5
    assert 'marker-end="url(#tip)"' in page
    assert "http" not in page
    assert "src=" not in page


def test_the_lanes_names_stay_in_sight_and_a_link_leads_to_the_breach(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture may be ten thousand pixels high; the breach is one row of it."""
    monkeypatch.setattr(Service, "_answer_repeat", lambda *_: False)
    runs = (simulate(Options(seed, verbose=True)) for seed in range(20))
    page = draw(next(run for run in runs if run.failure is not None))
    assert re.search(r"\.heads \{ position: sticky; top: 0", page)
    heads = page.partition('<svg class="heads"')[2].partition("</svg>")[0]
    assert re.findall(r'class="head"[^>]*>([^<]+)<', heads)[-2:] == ["p2", "clients"]
    assert page.count('href="#breach"') == page.count('id="breach"') == 1


def test_a_request_that_is_named_in_the_headline_leads_to_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The row where it was first asked."""
    monkeypatch.setattr(Service, "_answer_repeat", lambda *_: False)
    runs = (simulate(Options(seed, verbose=True)) for seed in range(20))
    report = next(run for run in runs if run.failure is not None)
    assert report.failure is not None
    found = re.search(r"request (\d+:\d+)", report.failure.what)
    assert found is not None
    page = draw(report)
    assert f'<a href="#{found[1]}">' in page
    assert page.count(f' id="{found[1]}"') == 1


def test_a_claimant_is_drawn_in_the_epoch_that_it_claims() -> None:
    """Whatever the epoch of its log is meanwhile."""
    page = draw(simulate(Options(3, seconds=2.0, verbose=True)))
    assert "claiming in epoch 1" in page
    assert "<title>claiming in epoch 0</title>" not in page


def test_answers_that_are_lost_on_their_way_are_shown() -> None:
    """Else nobody sees why a client asks again."""
    report = simulate(Options(52, world="whole", verbose=True, seconds=8.0, faults=frozenset({3, 4, 5, 6})))
    assert report.counts["answers lost"] > 0
    lost = [line for line in report.lines if line.mark is Mark.ASTRAY and "its answer to" in line.what]
    assert len(lost) == report.counts["answers lost"]


def test_a_good_run_has_no_link_to_a_breach() -> None:
    """Nor a row that it could lead to."""
    page = draw(simulate(Options(3, seconds=2.0)))
    assert 'href="#breach"' not in page
    assert 'id="breach"' not in page


def test_the_legend_tells_every_colour_of_a_dot() -> None:
    """What is started, healed, or the operator's, too."""
    legend = draw(simulate(Options(3, seconds=2.0))).partition('<p class="legend">')[2].partition("</p>")[0]
    for mark in (Mark.START, Mark.HEAL, Mark.OPERATOR, Mark.CLIENT, Mark.COMMIT, Mark.DISK, Mark.COORDINATION):
        assert DOTS[mark] in legend, mark


def _paused(page: str) -> int:
    """How many stretches of lanes are drawn as paused."""
    return page.count('fill="url(#paused)"')


def test_a_pause_is_drawn_whichever_fault_it_is_of() -> None:
    """Here of a rare one, in whose words the run's name has a comma behind it."""
    for seed in range(21, 100):  # which has it changes with the code
        report = simulate(Options(seed, 2, seconds=8.0, world="whole", verbose=True))
        pauses = [line for line in report.lines if line.what.startswith("pause ")]
        if [fault.what.partition(", ")[2] for fault in pauses] == ["which is about to put the state back"]:
            break
    (fault,) = pauses
    page = draw(report)
    assert _paused(page) >= 1
    assert _paused(draw(replace(report, lines=tuple(li for li in report.lines if li is not fault)))) == 0
