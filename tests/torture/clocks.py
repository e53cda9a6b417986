"""Clocks of one process: the time of day by `stepped.py`, the time since boot by a time namespace."""

import mmap
import random
import struct
from pathlib import Path

from tests.torture.stepped import LAYOUT

OFFSET, READINGS = struct.Struct("<d"), struct.Struct("<Q")


class WallClock:
    """The time of day as one process and its successors see it."""

    def __init__(self, file: Path) -> None:
        file.write_bytes(LAYOUT.pack(0.0, 0))
        with file.open("r+b") as opened:
            self._shared = mmap.mmap(opened.fileno(), LAYOUT.size)
        self.command = ("tests.torture.stepped", str(file))  # between `python -m` and the module

    def step(self, offset: float) -> None:
        """Be off by so many seconds from now on."""
        OFFSET.pack_into(self._shared, 0, offset)

    @property
    def readings(self) -> int:
        """How often the process has looked."""
        return int(READINGS.unpack_from(self._shared, OFFSET.size)[0])


def reboot(rng: random.Random) -> tuple[str, ...]:
    """The command that runs the command behind it with clocks that began some other time: as after a boot of the machine."""
    began = str(rng.randint(0, 10_000_000))
    return ("unshare", "--time", "--boottime", began, "--monotonic", began)
