"""A process whose clocks are wrong from outside, and that can be seen to have looked."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.torture.clocks import HostClock

TELLS = """
import time
from kvcommon.clock import SystemClock

def main():
    print(time.time(), time.time_ns() / 1e9, time.monotonic(), SystemClock().now())
"""


def tell(clock: HostClock, folder: Path) -> list[float]:
    """What a process sees that has this clock."""
    (folder / "tells.py").write_text(TELLS)
    command = [sys.executable, "-m", "tests.torture.hosted", "", "", str(clock.file), "tells"]
    environment = {"PYTHONPATH": f"{folder}:."}
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    return [float(word) for word in told.split()]


def test_a_step_is_seen_in_the_time_of_day_only(tmp_path: Path) -> None:
    """By both ways of asking for it; what leases go by stays."""
    clock = HostClock(tmp_path / "clock")
    clock.step(-86400.0)

    seconds, nanoseconds, monotonic, since_boot = tell(clock, tmp_path)

    assert abs(seconds - (time.time() - 86400.0)) < 3600
    assert abs(nanoseconds - seconds) < 3600
    assert abs(monotonic - time.monotonic()) < 3600
    assert abs(since_boot - time.clock_gettime(time.CLOCK_BOOTTIME)) < 3600
    assert clock.readings == 2


def test_a_rate_is_seen_in_the_clock_since_boot_only(tmp_path: Path) -> None:
    """By the clock that nodes have, as far as it has gained since, exactly; the tests see what was seen, and when."""
    clock = HostClock(tmp_path / "clock")
    began = time.clock_gettime(time.CLOCK_BOOTTIME)
    clock.run_at(1000.0)

    seconds, _, _, since_boot = tell(clock, tmp_path)

    look = clock.look
    assert abs(seconds - time.time()) < 3600
    assert (look.number, look.seen) == (1, since_boot)
    assert began < look.true < time.clock_gettime(time.CLOCK_BOOTTIME)
    assert look.seen - look.true == pytest.approx(1000.0 * (look.true - began), rel=0.01)


def test_another_rate_begins_without_a_jump(tmp_path: Path) -> None:
    """What was gained before stays."""
    clock = HostClock(tmp_path / "clock")
    clock.run_at(1000.0)
    tell(clock, tmp_path)
    first = clock.look
    clock.run_at(0.0)
    stopped = time.clock_gettime(time.CLOCK_BOOTTIME)
    tell(clock, tmp_path)
    gained = clock.look.seen - clock.look.true

    assert gained >= first.seen - first.true
    assert gained == pytest.approx(first.seen - first.true + 1000.0 * (stopped - first.true), rel=0.01)
    tell(clock, tmp_path)
    assert clock.look.seen - clock.look.true == pytest.approx(gained)
