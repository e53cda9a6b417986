"""The clocks of one host as its process and that one's successors see them; see `hosted.py` for their end of it."""

import mmap
import time
from pathlib import Path
from typing import NamedTuple

from tests.torture.hosted import CHOICE, CHOICE_AT, COURSE, COURSES_AT, LOOK, LOOK_AT, SIZE, STEP

RATE_ERROR = 0.01  # the bound of `Timing.clock_rate_error`: what leases allow for


class Look(NamedTuple):
    """When the process last looked at its clock that counts since boot: the true time then, and what it saw."""

    number: int
    true: float
    seen: float


class HostClock:
    """Its time of day can be stepped, its clock since boot made to run fast or slow; both tell whether anybody looked."""

    def __init__(self, file: Path) -> None:
        self.file = file
        file.write_bytes(bytes(SIZE))
        with file.open("r+b") as opened:
            self._shared = mmap.mmap(opened.fileno(), SIZE)

    def step(self, offset: float) -> None:
        """Have the time of day off by so many seconds from now on."""
        _, readings = STEP.unpack_from(self._shared)
        STEP.pack_into(self._shared, 0, offset, readings)

    @property
    def readings(self) -> int:
        """How often the process has looked at the time of day."""
        return int(STEP.unpack_from(self._shared)[1])

    def run_at(self, rate: float) -> None:
        """Gain so many seconds a second from now on, without a jump. Not a moment after the last call."""
        (choice,) = CHOICE.unpack_from(self._shared, CHOICE_AT)
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        since, ahead, old = COURSE.unpack_from(self._shared, COURSES_AT[choice])
        COURSE.pack_into(self._shared, COURSES_AT[1 - choice], now, ahead + (now - since) * old, rate)
        CHOICE.pack_into(self._shared, CHOICE_AT, 1 - choice)

    @property
    def look(self) -> Look:
        """The last look."""
        while (look := LOOK.unpack_from(self._shared, LOOK_AT)) != LOOK.unpack_from(self._shared, LOOK_AT):
            pass
        return Look(*look)
