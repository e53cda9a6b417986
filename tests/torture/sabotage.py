"""Loses acknowledged writes on purpose: to see that a run which loses some fails."""

import asyncio
from random import Random

from tests.torture.scene import Scene

FORGOTTEN = 4096  # bytes from the end of each log


async def forget(scene: Scene, rng: Random) -> None:
    """Kill all replicas of a partition and cut the end off their logs, as disks do that keep less than fsync promised."""
    nodes = scene.of(rng.randrange(scene.shape.partitions))
    await asyncio.gather(*(node.kill() for node in nodes))
    for node in nodes:
        segment = max(node.folder.glob("*.log"))
        with segment.open("r+b") as file:
            file.truncate(max(segment.stat().st_size - FORGOTTEN, 0))
    for node in nodes:
        node.start()
