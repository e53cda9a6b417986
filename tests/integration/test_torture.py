"""A short torture: `make torture` is the long one."""

import asyncio
import re
import sys
from pathlib import Path

FAULTS = 4
OPTIONS = [
    "--seed",
    "1",
    "--rounds",
    "1",
    "--seconds",
    "12",
    "--faults",
    str(FAULTS),
    "--partitions",
    "1",
    "--progress",
    "5",
]


async def test_real_processes_survive_what_is_done_to_them(tmp_path: Path) -> None:
    """Killed, frozen, cut off, slowed, filled, with their clocks stepped and ZooKeeper's members killed, under load."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.torture", *OPTIONS, "--verbose", "--failures", str(tmp_path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()

    told = out.decode()
    print(told)
    assert process.returncode == 0, told
    faults = re.search(r"^faults +(\d+)$", told, re.MULTILINE)
    assert faults is not None, told
    assert int(faults[1]) >= FAULTS, told
    assert re.search(r"^violations +0$", told, re.MULTILINE), told
