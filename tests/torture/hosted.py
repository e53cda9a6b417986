"""Runs another module on a host of its own: `main` in a process that was just forked, or `python -m tests.torture.hosted ...`.

Arguments: the path of a network namespace, seconds that the boot-time clocks are to be ahead (either may be empty: as
everywhere), the clock's file, then the module and its arguments.

The clock's file is mapped: the offset of the time of day in seconds, which the tests write, and how often it was read, which
shows that a step was seen. It is Python's time.time and time.time_ns that are off, the only places where nodes take the time
of day from; gRPC's C code reads the machine's. (libfaketime would step that, too, but slows a node to a tenth of its speed.)
"""

import ctypes
import importlib
import mmap
import os
import struct
import sys
import time
from pathlib import Path

LAYOUT = struct.Struct("<dQ")  # offset in seconds, number of readings
CLONE_NEWNET, CLONE_NEWTIME = 0x40000000, 0x00000080  # <sched.h>

libc = ctypes.CDLL(None, use_errno=True)


def enter(path: str, kind: int) -> None:
    """Move this process, which must have one thread, to a namespace (setns(2)). Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _check(libc.setns(descriptor, kind))
    finally:
        os.close(descriptor)


def boot_earlier(seconds: int) -> None:
    """Have the clocks that count since boot be so far ahead, in a new time namespace (time_namespaces(7)). Raises OSError."""
    _check(libc.unshare(CLONE_NEWTIME))
    Path("/proc/self/timens_offsets").write_text(f"monotonic {seconds} 0\nboottime {seconds} 0\n")
    enter("/proc/self/ns/time_for_children", CLONE_NEWTIME)


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


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main() -> None:
    """Go there and be the module."""
    network, ahead, file, module, *arguments = sys.argv[1:]
    if network:
        enter(network, CLONE_NEWNET)
    if ahead:
        boot_earlier(int(ahead))
    step_python(Path(file))
    sys.argv = [module.partition(".")[0], *arguments]
    sys.exit(importlib.import_module(module).main())


if __name__ == "__main__":
    main()
