"""Whom a fault strikes."""

import asyncio
from random import Random

from tests.torture.nodes import Node
from tests.torture.scene import Scene

WORKING_ONLY = 0.85  # of the times a partition that takes no writes at the moment is left in peace


class NoVictimError(Exception):
    """Nobody was there to be hurt: whom it was meant for is being hurt already, or had nothing to do. It does not count."""


def victim(scene: Scene, rng: Random, *, running: bool = True) -> Node:
    """Half of the times a leader; with `running` one whose process is not being hurt by another fault."""
    chosen = partition(scene, rng)
    leader = scene.leader(chosen)
    node = leader if leader and rng.random() < 0.5 else rng.choice(scene.of(chosen))
    if running and (node.busy.locked() or node.child.pid is None):
        raise NoVictimError
    return node


def partition(scene: Scene, rng: Random) -> int:
    """Mostly one that is taking writes: a fault is to strike a cluster at work, and sometimes one that is down."""
    chosen = rng.randrange(scene.shape.partitions)
    if not scene.flowing(chosen) and rng.random() < WORKING_ONLY:
        raise NoVictimError
    return chosen


async def pause(rng: Random, least: float, most: float) -> float:
    """Wait for so long; gives the seconds."""
    seconds = rng.uniform(least, most)
    await asyncio.sleep(seconds)
    return seconds
