"""Runs another module on a host of its own: `main` in a process that was just forked, or `python -m tests.torture.hosted ...`.

Arguments: the path of a network namespace, seconds that the boot-time clocks are to be ahead (either may be empty: as
everywhere), the clock's file, then the module and its arguments.

The clock's file is mapped: the tests write how far the time of day is off and at which rate the clock since boot runs, the
process how often it has looked, which shows that it saw a step or a rate. It is Python's functions that are off, and only those
that nodes ask: `time.time` and `time.time_ns` for versions, CLOCK_BOOTTIME for leases, time-outs and ages. gRPC's C code and the
event loop's timers have the machine's clocks. docs/correctness.md says why this is not libfaketime.
"""

import ctypes
import importlib
import mmap
import os
import struct
import sys
import time
from functools import partial
from pathlib import Path

from kvcommon.clock import SystemClock

STEP = struct.Struct("<dQ")  # seconds that the time of day is off, how often it was read; at the file's beginning
CHOICE = struct.Struct("<Q")  # which of the two courses counts
COURSE = struct.Struct("<ddd")  # from this time on, having been ahead by this much, gain so many seconds a second
LOOK = struct.Struct("<Qdd")  # how often the clock since boot was read; the last time, as it was and as it was seen
CHOICE_AT = STEP.size
COURSES_AT = (CHOICE_AT + CHOICE.size, CHOICE_AT + CHOICE.size + COURSE.size)
LOOK_AT = COURSES_AT[1] + COURSE.size
SIZE = LOOK_AT + LOOK.size
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


def follow(file: Path, ahead: int) -> None:
    """Have Python's clocks be as the file says from now on; this process's boot-time clocks are `ahead` of the tests'."""
    with file.open("r+b") as opened:
        shared = mmap.mmap(opened.fileno(), SIZE)
    _step_time_of_day(shared)
    _run_since_boot(shared, ahead)


def _step_time_of_day(shared: mmap.mmap) -> None:
    real, real_ns = time.time, time.time_ns

    def offset() -> float:
        seconds, read = STEP.unpack_from(shared)
        STEP.pack_into(shared, 0, seconds, read + 1)
        return float(seconds)

    time.time = lambda: real() + offset()
    time.time_ns = lambda: real_ns() + int(offset() * 1e9)


def _run_since_boot(shared: mmap.mmap, ahead: int) -> None:
    real, count = time.clock_gettime, 0

    def course() -> tuple[float, float, float]:
        while True:  # one course is written while the other counts
            (before,) = CHOICE.unpack_from(shared, CHOICE_AT)
            found: tuple[float, float, float] = COURSE.unpack_from(shared, COURSES_AT[before])
            if CHOICE.unpack_from(shared, CHOICE_AT) == (before,):
                return found

    def clock_gettime(clock: int) -> float:
        nonlocal count
        if clock != time.CLOCK_BOOTTIME:
            return real(clock)
        now = real(clock) - ahead
        since, gained, rate = course()
        seen = now + gained + (now - since) * rate
        count += 1
        LOOK.pack_into(shared, LOOK_AT, count, now, seen)
        return seen + ahead

    time.clock_gettime = clock_gettime
    SystemClock.now = staticmethod(partial(clock_gettime, time.CLOCK_BOOTTIME))  # it holds on to the function it found


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
    follow(Path(file), int(ahead or 0))
    sys.argv = [module.partition(".")[0], *arguments]
    sys.exit(importlib.import_module(module).main())


if __name__ == "__main__":
    main()
