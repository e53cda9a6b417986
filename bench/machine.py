"""The machine that was measured, for whoever reads the figures."""

import asyncio
import os
import platform
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

REST_SECONDS = 20.0  # to wait for a machine at rest
REST_LOOK = 0.2
REST_BUSY = 0.25  # share of all processors that heartbeats of three clusters may take


@dataclass(frozen=True, slots=True)
class Machine:
    """What figures depend on."""

    cpu: str
    cores: int
    memory_gib: int
    kernel: str
    python: str
    file_system: str  # type of what holds the data, and its device
    date: str

    def to_json(self) -> dict[str, str | int]:
        return asdict(self)


def _first(pattern: str, text: str, otherwise: str) -> str:
    found = re.search(pattern, text, re.MULTILINE)
    return found.group(1).strip() if found else otherwise


def _file_system(folder: Path) -> str:
    """Type and device of the mount that holds a folder, by the longest mount point."""
    best = ("", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        device, point, kind = line.split(" ")[:3]
        if folder.absolute().is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, f"{kind} on {device}")
    return best[1]


def this_machine(folder: Path, today: date) -> Machine:
    """This one; `folder` holds the data."""
    memory = int(_first(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(), "0"))
    return Machine(
        cpu=_first(r"^model name\s*:(.*)$", Path("/proc/cpuinfo").read_text(), platform.machine()),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(memory / 2**20),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        file_system=_file_system(folder),
        date=today.isoformat(),
    )


class Processors:
    """What became of all processors' time since it was made."""

    def __init__(self) -> None:
        self._before = self._times()

    @staticmethod
    def _times() -> tuple[int, int, int]:
        """Used, idle, and wanted but given to others by the host of a virtual machine."""
        user, nice, system, idle, wait, interrupts, soft, stolen = map(int, Path("/proc/stat").read_text().split()[1:9])
        return user + nice + system + interrupts + soft, idle + wait, stolen

    def _since(self) -> tuple[int, int, int]:
        used, idle, stolen = (now - before for now, before in zip(self._times(), self._before, strict=True))
        return used, idle, stolen

    @property
    def stolen(self) -> float:
        """Of the time that was wanted; 0 to 1."""
        used, _, stolen = self._since()
        return stolen / (used + stolen) if used + stolen else 0.0

    @property
    def busy(self) -> float:
        """Of all time; 0 to 1."""
        used, idle, stolen = self._since()
        return 1 - idle / max(1, used + idle + stolen)


async def at_rest(say: Callable[[str], None]) -> None:
    """Wait until this machine has little to do: what a series leaves to be done, as compaction, is not measured with the next."""
    end = time.monotonic() + REST_SECONDS
    while time.monotonic() < end:
        processors = Processors()
        await asyncio.sleep(REST_LOOK)
        if processors.busy < REST_BUSY:
            return
    say(f"the machine was not at rest within {REST_SECONDS:g} s: something else uses it")


def resident_mib(pid: int) -> float:
    """Resident memory of a process in MiB."""
    return int(_first(r"^VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), "0")) / 1024
