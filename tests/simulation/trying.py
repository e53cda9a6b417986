"""What the tests of every world ask of a seed."""

import os
import subprocess
import sys

import pytest

from tests.simulation.explain import explain
from tests.simulation.report import Report
from tests.simulation.run import simulate
from tests.simulation.schedule import Options


def try_seed(options: Options) -> Report:
    """A run in which nothing is wrong; one that fails tells the command that replays it, and the end of its timeline."""
    report = simulate(options)
    if report.failure is not None:
        pytest.fail(f"{explain(report, last=60)}\n\nadd --shrink for a short run that fails alike", pytrace=False)
    return report


def told_twice(*arguments: str) -> tuple[str, str]:
    """What `python -m tests.simulation` prints in two processes, in which sets have another order."""
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    one, other = (
        subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": order}, capture_output=True, text=True, check=True
        ).stdout
        for order in ("1", "2")
    )
    return one, other
