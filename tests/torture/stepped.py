"""Runs another module whose time of day can be stepped from outside: `python -m tests.torture.stepped <file> <module> <arguments...>`.

The file is mapped: the offset in seconds, which the tests write, and how often the time of day was read, which shows that
a step was seen. It is Python's time.time and time.time_ns that are off, the only places where nodes take the time of day
from; gRPC's C code reads the machine's. (libfaketime would step that, too, but slows a node to a tenth of its speed.)
"""

import importlib
import mmap
import struct
import sys
import time
from pathlib import Path

LAYOUT = struct.Struct("<dQ")  # offset in seconds, number of readings


def step_python(file: Path) -> None:
    """Have Python's time of day follow the file from now on."""
    with file.open("r+b") as opened:
        shared = mmap.mmap(opened.fileno(), LAYOUT.size)
    real, real_ns = time.time, time.time_ns

    def offset() -> float:
        seconds, read = LAYOUT.unpack(shared)
        LAYOUT.pack_into(shared, 0, seconds, read + 1)
        return float(seconds)

    time.time = lambda: real() + offset()
    time.time_ns = lambda: real_ns() + int(offset() * 1e9)


def main() -> None:
    """Be the module."""
    file, module, *arguments = sys.argv[1:]
    step_python(Path(file))
    sys.argv = [module.partition(".")[0], *arguments]
    sys.exit(importlib.import_module(module).main())


if __name__ == "__main__":
    main()
