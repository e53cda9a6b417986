"""A process whose time of day is stepped from outside, and that can be seen to have looked."""

import subprocess
import sys
import time
from pathlib import Path

from tests.torture.clocks import WallClock

TELLS = """
import time

def main():
    print(time.time(), time.time_ns() / 1e9, time.monotonic())
"""


def test_only_the_time_of_day_is_stepped(tmp_path: Path) -> None:
    """Both ways of asking for it; what leases go by stays."""
    (tmp_path / "tells.py").write_text(TELLS)
    clock = WallClock(tmp_path / "clock")
    clock.step(-86400.0)
    command = [sys.executable, "-m", "tests.torture.hosted", "", "", str(clock.file), "tells"]

    told = subprocess.run(
        command, check=True, capture_output=True, text=True, env={"PYTHONPATH": f"{tmp_path}:."}
    ).stdout

    seconds, nanoseconds, monotonic = map(float, told.split())
    assert abs(seconds - (time.time() - 86400.0)) < 3600
    assert abs(nanoseconds - seconds) < 3600
    assert abs(monotonic - time.monotonic()) < 3600
    assert clock.readings == 2
