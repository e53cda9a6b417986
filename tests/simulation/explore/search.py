"""Breadth first over the states, with or without a bound on deviations from what is usual."""

from dataclasses import dataclass

from tests.simulation.explore.parts import USUAL, Action, Bounds, BrokenError
from tests.simulation.explore.states import Shelf, key
from tests.simulation.explore.world import World


@dataclass(frozen=True, slots=True)
class Found:
    """How many states were seen at each depth; the way to a broken one, in words, if there is one."""

    per_depth: tuple[int, ...]
    transitions: int
    states: int
    broken: str
    way: tuple[str, ...]


def settled(replicas: int, bounds: Bounds) -> World:
    """A partition that serves: all that can happen without deaths, writes and time was done, in order."""
    world = World(replicas, bounds)
    while not all(n.core is not None and n.core.commit == len(world.committed) - 1 > 0 for n in world.nodes):
        action = next((a for a in world.actions() if a[0] in USUAL[:7]), None)
        if action is not None:
            world.do(action)
            continue
        world.now += 0.5
        for i in range(replicas):
            world.do(("tick", i))
    return world


def explore(start: World, depth: int, *, deviations: int | None = None, most: int = 1 << 40) -> Found:
    """Breadth first from a state, to a depth, or until `most` states were seen.

    With `deviations` only ways that leave what is usual at most so often.
    """
    free = deviations is None
    left = deviations or 0
    shelf, seen = Shelf(), {key(start, ticks=not free): left}
    frontier: list[tuple[World, tuple[Action, ...], int]] = [(start, (), left)]
    states, transitions = [1], 0
    for level in range(1, depth + 1):
        new = 0
        following: list[tuple[World, tuple[Action, ...], int]] = []
        for here, way, left in frontier:
            usual = None if free else here.usual()
            for action in here.actions() if free or left else filter(None, (usual,)):
                world = shelf.branch(here, action)
                transitions += 1
                try:
                    world.do(action)
                except (BrokenError, AssertionError) as e:
                    said = f"{type(e).__name__}: {e}"
                    return Found(tuple(states), transitions, len(seen), said, tuple(tell(start, (*way, action))))
                found = key(world, ticks=not free)
                remains = left if free or action == usual else left - 1
                if seen.get(found, -1) < remains:
                    seen[found] = remains
                    new += 1
                    if level < depth:  # it is gone on from
                        following.append((world, (*way, action), remains))
            if len(seen) >= most:
                break
        states.append(new)
        frontier = following
        if len(seen) >= most or not frontier:
            break
    return Found(tuple(states), transitions, len(seen), "", ())


def tell(start: World, way: tuple[Action, ...]) -> list[str]:
    """What happens on a way, action by action."""
    shelf, world, lines = Shelf(), start, []
    for number, action in enumerate(way, 1):
        world = shelf.branch(world, action)
        try:
            world.do(action)
        except (BrokenError, AssertionError) as e:
            world.told.append(f">>> {e}")
        first, *rest = world.told
        lines.append(f"{number:3} {world.now:7.1f} s  {first:<12} {'; '.join(rest)}")
    return lines
