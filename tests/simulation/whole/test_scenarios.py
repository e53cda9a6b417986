"""What happens to whole clusters by script; see `scenarios`."""

import pytest

from tests.simulation.explain import explain
from tests.simulation.record import UNEXPECTED
from tests.simulation.run import simulate
from tests.simulation.trying import try_seed
from tests.simulation.whole.scenarios import SCENARIOS, scenario
from tests.simulation.whole.script import Scenario, Script


@pytest.mark.parametrize("played", SCENARIOS.values(), ids=lambda played: played.name)
def test_what_a_scenario_expects_comes_about(played: Scenario) -> None:
    """And nothing that was acknowledged is lost, no invariant broken, and all is whole in the end."""
    assert try_seed(played.options()).served > 0


def test_what_does_not_come_about_is_told_with_the_timeline(monkeypatch: pytest.MonkeyPatch) -> None:
    """And with the command that shows it again."""

    async def nothing_happens(s: Script) -> None:
        a, *_ = await s.begin(records=1)
        await s.leads(a, epoch=2, within=1.0)

    monkeypatch.setattr("tests.simulation.whole.scenarios.SCENARIOS", {})
    report = simulate(Scenario(scenario(nothing_happens)).options())
    assert report.failure is not None
    assert report.failure.invariant == UNEXPECTED
    told = explain(report)
    assert "c-p0-0 leads in epoch 2 was expected within 1 s; there is epoch 1 led by c-p0-0-r1" in told
    assert "as expected: 1 records are committed" in told
    assert "--scenario nothing_happens --seed 1" in told
