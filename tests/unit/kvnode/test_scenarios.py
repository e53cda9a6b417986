"""Each scenario in `scenarios/` happens as it is written there."""

import os
from pathlib import Path

import pytest

from tests.unit.kvnode.scenario import play

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda p: p.stem)
def test_scenario_happens_as_written(path: Path) -> None:
    """The output of every command is the one in the file."""
    written, happened = play(path)
    if os.environ.get("KV_REWRITE"):
        path.write_text(happened)
    else:
        assert happened == written
