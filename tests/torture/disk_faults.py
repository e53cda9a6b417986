"""What is done to disks: they fill, they hang, they lose their power. For whoever writes there, all of it is real."""

import asyncio
from contextlib import AsyncExitStack
from random import Random

from tests.torture.choice import NoVictimError, partition, pause, victim
from tests.torture.disks import Ext4Disk
from tests.torture.nodes import Node
from tests.torture.scene import Scene


async def fill_disk(scene: Scene, rng: Random) -> str:
    """Take a node's free space: nearly all of it, or all but a few pages."""
    node = victim(scene, rng, running=False)
    if any(other.disk_busy.locked() for other in scene.of(node.partition)):
        raise NoVictimError
    assert node.disk is not None
    left = rng.choice((100 << 20, 64 << 10, 0))
    async with node.disk_busy:
        await asyncio.to_thread(node.disk.fill, left)
        try:
            lasted = await pause(rng, 2.0, 6.0)
        finally:
            await asyncio.to_thread(node.disk.empty)
    return f"{node.name}'s disk full but for {left >> 10} KiB for {lasted:.1f} s"


async def hang_disk(scene: Scene, rng: Random) -> str:
    """Every write and sync waits, for a moment or past the lease. A process that waits for a disk can't even be killed."""
    node = victim(scene, rng)
    seconds = rng.uniform(0.2, 2.0) if rng.random() < 0.5 else rng.uniform(2.0, 8.0)
    async with AsyncExitStack() as stack:
        disk = await _taken(node, stack)
        await asyncio.to_thread(disk.hang, seconds)
    return f"{node.name}'s disk hung for {seconds:.1f} s"


async def power_off(scene: Scene, rng: Random) -> str:
    """One node's machine loses its power, and with it what was not synced; its boot-time clock begins anew."""
    return await _power_off([victim(scene, rng)], rng)


async def power_off_partition(scene: Scene, rng: Random) -> str:
    """All machines of a partition lose their power at once: what was acknowledged is where it was synced, or nowhere."""
    return await _power_off(scene.of(partition(scene, rng)), rng)


async def _power_off(nodes: list[Node], rng: Random) -> str:
    async with AsyncExitStack() as stack:
        disks = [await _taken(node, stack) for node in nodes]
        await asyncio.gather(*(node.kill() for node in nodes))
        for disk in disks:
            await asyncio.to_thread(disk.lose_power)
        for node in rng.sample(nodes, len(nodes)):
            await pause(rng, 0.0, 5.0 / len(nodes))
            node.start()
    return f"{', '.join(node.name for node in nodes)} lost power"


async def _taken(node: Node, stack: AsyncExitStack) -> Ext4Disk:
    """Have the node and its disk for this fault alone."""
    if node.busy.locked() or node.disk_busy.locked() or node.child.pid is None:
        raise NoVictimError
    await stack.enter_async_context(node.busy)
    await stack.enter_async_context(node.disk_busy)
    assert isinstance(node.disk, Ext4Disk), "chosen without such disks"
    return node.disk
