"""The machine that was measured, for whoever reads the figures."""

import os
import platform
import re
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path


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


class Stolen:
    """What the host of a virtual machine gave to others while this one wanted to compute, since it was made."""

    def __init__(self) -> None:
        self._before = self._times()

    @staticmethod
    def _times() -> tuple[int, int]:
        """Of all processors: wanted and given or not, and not given."""
        user, nice, system, _idle, _wait, interrupts, soft, stolen = map(
            int, Path("/proc/stat").read_text().split()[1:9]
        )
        return user + nice + system + interrupts + soft + stolen, stolen

    @property
    def share(self) -> float:
        """Of the time that was wanted; 0 to 1."""
        wanted, stolen = (now - before for now, before in zip(self._times(), self._before, strict=True))
        return stolen / wanted if wanted else 0.0


def resident_mib(pid: int) -> float:
    """Resident memory of a process in MiB."""
    return int(_first(r"^VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), "0")) / 1024
