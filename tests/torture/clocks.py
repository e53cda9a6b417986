"""The time of day as one process and its successors see it; see `hosted.py` for their end of it."""

import mmap
import struct
from pathlib import Path

from tests.torture.hosted import LAYOUT

OFFSET, READINGS = struct.Struct("<d"), struct.Struct("<Q")


class WallClock:
    """Can be stepped, and tells whether anybody looked."""

    def __init__(self, file: Path) -> None:
        self.file = file
        file.write_bytes(LAYOUT.pack(0.0, 0))
        with file.open("r+b") as opened:
            self._shared = mmap.mmap(opened.fileno(), LAYOUT.size)

    def step(self, offset: float) -> None:
        """Be off by so many seconds from now on."""
        OFFSET.pack_into(self._shared, 0, offset)

    @property
    def readings(self) -> int:
        """How often the process has looked."""
        return int(READINGS.unpack_from(self._shared, OFFSET.size)[0])
