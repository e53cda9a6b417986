"""Loses acknowledged writes on purpose: to see that a run which loses some fails."""

import asyncio
from pathlib import Path
from random import Random

from kvstore.segment import read_segment_header
from tests.torture.scene import Scene

FORGOTTEN = 4096  # bytes from the end of what was written to each log


async def forget(scene: Scene, rng: Random) -> None:
    """Kill all replicas of a partition and cut the end off their logs, as disks do that keep less than fsync promised."""
    nodes = scene.of(rng.randrange(scene.shape.partitions))
    await asyncio.gather(*(node.kill() for node in nodes))
    for node in nodes:
        cut_end(node.folder)
    for node in nodes:
        node.start()


def cut_end(folder: Path) -> None:
    """Cut off what was written last to a stopped replica's log."""
    segment = max(folder.glob("*.log"))
    data = segment.read_bytes()
    own = read_segment_header(data, segment).own(len(data))  # behind it is what the file held before
    written = len(data[:own].rstrip(b"\0"))  # behind it are the zeros that the log is to grow into
    with segment.open("r+b") as file:
        file.truncate(max(written - FORGOTTEN, 0))
