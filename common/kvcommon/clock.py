"""Time as an argument: what reads a clock takes one of these, so that the simulation can stand in for it."""

import time
from functools import partial
from typing import Protocol


class Clock(Protocol):
    """Two clocks of one machine."""

    def now(self) -> float:
        """Seconds since boot, suspended time included; for leases, time-outs and ages."""
        ...

    def wall_ms(self) -> int:
        """Unix time in milliseconds; for versions and for people, never for leases."""
        ...


class SystemClock:
    """This machine's clocks."""

    now = staticmethod(partial(time.clock_gettime, time.CLOCK_BOOTTIME))  # asked for every command: no Python between

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000
