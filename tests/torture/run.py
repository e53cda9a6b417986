"""A run: a cluster, and rounds on it. A round: load, faults, healing, judgement."""

import asyncio
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kvclient import AsyncClient
from kvlocal.processes import Exit
from kvlocal.shape import Shape
from tests.support.doors import ClientDoor
from tests.support.workload import Plan, Report, Workload, contended_keys
from tests.torture import upkeep, verdict
from tests.torture.disks import Disk
from tests.torture.nemesis import Nemesis
from tests.torture.report import Round, Screen
from tests.torture.sabotage import forget
from tests.torture.scene import Scene, open_scene

KEYS = 60
LEAST_RATE = 100.0  # acknowledged writes a second before the first fault
WARM_SECONDS = 3.0
WHOLE_SECONDS = 90.0  # until all is whole after the last fault; a bound for a busy machine
FLOW_SECONDS = 60.0
FLOWING_SECONDS = 0.5  # since the last acknowledged write


@dataclass(frozen=True, slots=True)
class Plans:
    """What the command line asked for."""

    seed: int
    rounds: int
    seconds: float  # of faults, per round
    faults: int  # at least so many in a round, if it takes longer
    partitions: int
    replicas: int
    kinds: tuple[str, ...]
    namespaces: bool
    disks: type[Disk]
    durability: str
    sabotage: bool


@dataclass(slots=True)
class Outcome:
    """A run's end."""

    rounds: list[Round] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)  # found after the last round


async def torture(plans: Plans, folder: Path, screen: Screen) -> Outcome:
    """Run; stops after the first round with a breach, so that everything is as it was then."""
    rng = random.Random(plans.seed)
    shape = Shape("t", plans.partitions, plans.replicas, min_in_sync=(plans.replicas + 1) // 2)
    outcome = Outcome()

    def tell(one: Exit) -> None:
        screen.say(f"by itself: {one}")

    async with open_scene(
        shape,
        folder,
        namespaces=plans.namespaces,
        disks=plans.disks,
        durability=plans.durability,
        rng=rng,
        tell=tell,
    ) as scene:
        screen.say(f"{len(scene.nodes)} nodes, a router and {len(scene.members)} members of ZooKeeper serve")
        for number in range(plans.rounds):
            seed = plans.seed + number
            one = await _round(scene, seed, plans, screen)
            outcome.rounds.append(one)
            screen.round(one)
            if one.breaches:
                return outcome
        for node in scene.nodes.values():
            node.child.signal(signal.SIGKILL, hold=True)  # all at once, so that nobody writes anything more
        await asyncio.gather(*(node.child.wait_down() for node in scene.nodes.values()))
        outcome.breaches = await asyncio.to_thread(verdict.differing_disks, scene)
    return outcome


async def _round(scene: Scene, seed: int, plans: Plans, screen: Screen) -> Round:
    # Each its own: what the load draws depends on how fast it goes, and the faults are to be the seed's.
    load_rng, faults_rng, losses_rng = (random.Random(f"{what} of {seed}") for what in ("load", "faults", "losses"))
    keys = contended_keys(KEYS, scene.where, range(scene.shape.partitions), f"r{seed}")
    workload = Workload(await _doors(scene), keys, scene.where, plan=Plan(), rng=load_rng)
    scene.flowing = lambda partition: _last(workload, partition) > workload.clock() - FLOWING_SECONDS
    one = Round(seed, plans.seconds, workload.history)
    before, exits, stop = scene.leaderships(), len(scene.exits), asyncio.Event()
    compacted = upkeep.done(scene.folder / "logs")
    load = asyncio.create_task(workload.run(stop), name="load")
    progress = asyncio.create_task(_progress(one, workload, screen), name="progress")
    try:
        started = await _warm_up(workload, one)
        nemesis = Nemesis(scene, faults_rng, time.monotonic, plans.kinds)
        one.nemesis = nemesis.log
        await nemesis.run(plans.seconds, plans.faults)
        if plans.sabotage:
            await forget(scene, losses_rng)
        one.whole_after = await scene.whole(WHOLE_SECONDS)
        await _flow(scene, workload)
        stop.set()
        await load
        stopped = workload.clock()
        final = await workload.settle()
        report = Report(workload.history, workload.timeline, workload.troubles, final, started, stopped)
        one.breaches += await asyncio.to_thread(verdict.judge, report)
        one.breaches += await verdict.differing_nodes(scene, keys)
        one.report = report
    except TimeoutError as error:
        one.breaches.append(f"not whole again: {error}")
    except AssertionError as error:  # a key can't be read after everything is healed, or the load was too small
        one.breaches.append(str(error))
    finally:
        progress.cancel()
        load.cancel()
        await asyncio.gather(load, progress, return_exceptions=True)
        for door in workload.doors:
            await door.close()
    one.failovers = scene.leaderships() - before
    one.exits = len(scene.exits) - exits
    one.upkeep = upkeep.done(scene.folder / "logs") - compacted
    return one


def _last(workload: Workload, partition: int) -> float:
    """When a partition's last write was acknowledged."""
    times = workload.timeline.acknowledged[partition]
    return times[-1] if times else 0.0


async def _doors(scene: Scene) -> list[ClientDoor]:
    nodes = [f"{node.address}:{node.ports['grpc']}" for node in scene.nodes.values()]
    router = f"{scene.router.address}:{scene.router.ports['grpc']}"
    doors = [ClientDoor(await AsyncClient.connect(nodes, timeout=30.0)) for _ in range(2)]
    return doors + [ClientDoor(await AsyncClient.connect(router, mode="router", timeout=30.0)) for _ in range(2)]


async def _warm_up(workload: Workload, one: Round) -> float:
    """Load without faults, and its rate. Raises AssertionError when it is too small to mean anything."""
    started = workload.clock()
    deadline = started + FLOW_SECONDS
    while one.rate < LEAST_RATE and workload.clock() < deadline:
        await asyncio.sleep(WARM_SECONDS)
        now = workload.clock()
        one.rate = workload.timeline.rate(now - WARM_SECONDS, now)
    assert one.rate >= LEAST_RATE, (
        f"only {one.rate:.0f} acknowledged writes/s before the first fault: this machine is too busy"
    )
    return started


async def _flow(scene: Scene, workload: Workload, count: int = 50) -> None:
    """Until so many more writes were acknowledged in every partition."""
    times = workload.timeline.acknowledged
    target = {p: len(times[p]) + count for p in range(scene.shape.partitions)}
    deadline = workload.clock() + FLOW_SECONDS
    while still := [p for p, n in target.items() if len(times[p]) < n]:
        if workload.clock() > deadline:
            why = "; ".join(str(trouble) for trouble in workload.troubles[-4:])
            raise TimeoutError(
                f"too few writes in partitions {still}, {FLOW_SECONDS:.0f} s after all was healed: {why}"
            )
        await asyncio.sleep(0.05)


async def _progress(one: Round, workload: Workload, screen: Screen) -> None:
    began = workload.clock()
    while True:
        await asyncio.sleep(screen.every)
        now = workload.clock()
        rate = workload.timeline.rate(now - screen.every, now)
        last: Sequence[str] = one.nemesis.lines[-1:]
        screen.progress(one, now - began, rate, last[0] if last else "")
