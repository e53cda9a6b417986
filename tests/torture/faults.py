"""What is done to the cluster: each kind of fault begins, is shown to have happened, lasts, and is healed.

A fault is a coroutine function of the scene and its own random numbers. It returns, when all is healed, what it did, for a
person; it raises NothingHappenedError when nothing shows that it happened.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random

from tests.torture.choice import NoVictimError, partition, pause, victim
from tests.torture.clocks import RATE_ERROR
from tests.torture.disk_faults import fill_disk, hang_disk, power_off, power_off_partition
from tests.torture.network import CUT, Impairment, NothingHappenedError, Switched, Touched
from tests.torture.nodes import stopped
from tests.torture.scene import CLIENTS, ROUTER, Scene

LEASE = 2.0
SERVING_SECONDS = 90.0  # for ZooKeeper to be back; a busy machine takes long to start three Javas

Deed = Callable[[Scene, Random], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: how often it is chosen, and what it needs."""

    name: str
    weight: float
    deed: Deed
    needs: Callable[[Scene], bool] = lambda _: True


# --- processes -------------------------------------------------------------------------------------------------------


async def kill(scene: Scene, rng: Random) -> str:
    """SIGKILL one node; its successor's boot-time clock began at another time."""
    node = victim(scene, rng)
    async with node.busy:
        await node.kill()
        down = await pause(rng, 0.0, 5.0)
        node.start()
    return f"{node.name} killed, down for {down:.1f} s"


async def kill_partition(scene: Scene, rng: Random) -> str:
    """SIGKILL all replicas of a partition at once, and start them in any order."""
    nodes = scene.of(partition(scene, rng))
    if any(node.busy.locked() for node in nodes):
        raise NoVictimError
    for node in nodes:
        await node.busy.acquire()
    try:
        await asyncio.gather(*(node.kill() for node in nodes))
        for node in rng.sample(nodes, len(nodes)):
            await pause(rng, 0.0, 1.5)
            node.start()
    finally:
        for node in nodes:
            node.busy.release()
    return f"all of partition {nodes[0].partition} killed"


async def terminate(scene: Scene, rng: Random) -> str:
    """SIGTERM: it hands over and leaves, as far as it can."""
    node = victim(scene, rng)
    async with node.busy:
        await node.terminate()
        down = await pause(rng, 0.0, 3.0)
        node.start()
    return f"{node.name} told to end, down for {down:.1f} s"


async def freeze(scene: Scene, rng: Random) -> str:
    """SIGSTOP, half of the times past the lease."""
    node = victim(scene, rng)
    async with node.busy:
        try:
            node.freeze()
            lasted = await (pause(rng, 0.2, LEASE) if rng.random() < 0.5 else pause(rng, LEASE, 4 * LEASE))
            stopped(node.child.pid)
        finally:
            node.thaw()
    return f"{node.name} frozen for {lasted:.1f} s"


async def step_clock(scene: Scene, rng: Random) -> str:
    """Step a node's time of day, a little or a lot, forth or back; later back to what it should be."""
    node = victim(scene, rng, running=False)
    assert node.clock is not None
    offset = rng.choice((-1, 1)) * rng.choice((rng.uniform(0.1, 2.0), rng.uniform(2.0, 60.0), 3600.0, 86400.0))
    before = node.clock.readings
    node.clock.step(offset)
    lasted = await pause(rng, 2.0, 8.0)
    readings = node.clock.readings - before
    node.clock.step(0.0)
    if not readings:  # it was down, or a follower with nothing to log
        raise NoVictimError
    return f"{node.name}'s time of day off by {offset:+.1f} s for {lasted:.1f} s ({readings} readings)"


async def change_rate(scene: Scene, rng: Random) -> str:
    """Have the clock that leases go by run at another wrong rate from now on, as wrong as is allowed or less."""
    node = victim(scene, rng)
    assert node.clock is not None
    if node.clock_busy.locked():
        raise NoVictimError
    rate = rng.choice((-RATE_ERROR, RATE_ERROR, rng.uniform(-RATE_ERROR, RATE_ERROR)))
    async with node.clock_busy:
        node.clock.run_at(rate)
        await pause(rng, 0.5, 1.0)
        first = node.clock.look
        await pause(rng, 1.0, 3.0)
        last = node.clock.look
    if not last.number:
        raise NothingHappenedError(f"{node.name} has never looked at the clock that is to run at another rate")
    if last.true - first.true < 0.5:  # it was down or stopped
        raise NoVictimError
    gained = (last.seen - first.seen) / (last.true - first.true) - 1.0
    if abs(gained - rate) > 1e-6:
        raise NothingHappenedError(f"{node.name}'s clock was to gain {rate} seconds a second, and gains {gained}")
    return f"{node.name}'s clock gains {rate * 1000:+.1f} ms a second from now on"


# --- networks --------------------------------------------------------------------------------------------------------


async def cut(scene: Scene, rng: Random) -> str:
    """Cut some hosts off from others, both ways or one way."""
    network = _switched(scene)
    text, some, others = _side(scene, rng)
    way = rng.choice(("both ways", "both ways", "in", "out"))
    pairs = frozenset[tuple[int, int]]()
    if way != "in":
        pairs |= network.pairs(some, others)
    if way != "out":
        pairs |= network.pairs(others, some)
    before = _processes(scene, some)
    with network.hurt(pairs, CUT) as touched:
        lasted = await pause(rng, 2.5, 8.0)
    _check(scene, touched, CUT, others, disturbed=before != _processes(scene, some))
    return f"{text} cut {way} for {lasted:.1f} s ({touched.lost} packets lost)"


async def slow(scene: Scene, rng: Random) -> str:
    """Make the ways between some hosts slow, reordering, perhaps losing a part."""
    network = _switched(scene)
    text, some, others = _side(scene, rng)
    how = Impairment(rng.choice((0.0, 0.02, 0.1)), rng.choice((0.02, 0.1, 0.4)), rng.choice((0.0, 0.05, 0.3)))
    before = _processes(scene, some)
    with network.hurt(network.pairs(some, others) | network.pairs(others, some), how) as touched:
        lasted = await pause(rng, 2.5, 8.0)
    _check(scene, touched, how, others, disturbed=before != _processes(scene, some))
    return (
        f"{text} slowed by {how.kept * 1000:.0f} to {(how.kept + how.jitter) * 1000:.0f} ms, losing {how.lost:.0%}, "
        f"for {lasted:.1f} s ({touched.kept} packets kept, {touched.lost} lost)"
    )


def _processes(scene: Scene, hosts: Sequence[str]) -> list[tuple[int | None, bool]]:
    """Which processes run there, and whether another fault is at work on them."""
    nodes = (node for node in scene.nodes.values() if node.name in hosts)
    return [(node.child.pid, node.busy.locked()) for node in nodes] + [(None, scene.zookeeper.locked())]


def _check(scene: Scene, touched: Touched, how: Impairment, others: Sequence[str], *, disturbed: bool) -> None:
    """Who is cut off from everybody has traffic, unless it was down; two followers, or a follower and clients, may have none."""
    if {CLIENTS, ROUTER, *scene.members} <= set(others) and not disturbed:
        touched.check(how)
    elif not touched.lost + touched.kept:
        raise NoVictimError


def _side(scene: Scene, rng: Random) -> tuple[str, Sequence[str], Sequence[str]]:
    """Who is on either side: a name for it, some hosts, and those that they have trouble with."""
    everybody = [CLIENTS, ROUTER, *scene.members, *scene.nodes]
    node = victim(scene, rng, running=False)
    peers = [other.name for other in scene.of(node.partition) if other is not node]
    member = rng.choice(scene.members)
    sides: list[tuple[str, Sequence[str], Sequence[str]]] = [
        (f"{node.name} from everybody", [node.name], everybody),
        (f"{node.name} from its peers", [node.name], peers),
        (f"{node.name} from one peer", [node.name], [rng.choice(peers)]),
        (f"{node.name} from ZooKeeper", [node.name], scene.members),
        (f"{node.name} from clients", [node.name], [CLIENTS, ROUTER]),
        (f"{member} from everybody", [member], everybody),
        ("all nodes from ZooKeeper", list(scene.nodes), scene.members),
    ]
    return rng.choices(sides, (4, 4, 2, 3, 2, 2, 1))[0]


def _network(scene: Scene) -> bool:
    return scene.network.can_hurt


def _switched(scene: Scene) -> Switched:
    assert isinstance(scene.network, Switched), "chosen without namespaces"
    return scene.network


# --- ZooKeeper -------------------------------------------------------------------------------------------------------


async def kill_zookeeper(scene: Scene, rng: Random) -> str:
    """SIGKILL one, two or all members."""
    async with _ensemble(scene):
        members = rng.sample(scene.ensemble.members, rng.choice((1, 1, 2, 3)))
        for member in members:
            await asyncio.to_thread(member.kill)
            if member.running:
                raise NothingHappenedError(f"{member.directory.name} was killed and runs")
        down = await pause(rng, 0.5, 8.0)
        await _serve(scene)
    return f"{len(members)} of ZooKeeper's members killed, down for {down:.1f} s"


async def freeze_zookeeper(scene: Scene, rng: Random) -> str:
    """SIGSTOP one or two members."""
    async with _ensemble(scene):
        members = rng.sample(scene.ensemble.members, rng.choice((1, 2)))
        try:
            for member in members:
                member.pause()
                stopped(member.pid)
            lasted = await pause(rng, 1.0, 9.0)
        finally:
            for member in members:
                member.resume()
    return f"{len(members)} of ZooKeeper's members frozen for {lasted:.1f} s"


async def wipe_zookeeper(scene: Scene, rng: Random) -> str:
    """Lose all of the ensemble's data: the nodes put it back from their disks, as a new generation (rule 19)."""
    async with _ensemble(scene):
        before = {p: state.generation for p, state in scene.states().items()}
        await asyncio.to_thread(scene.ensemble.wipe)
        down = await pause(rng, 0.5, 3.0)
        await _serve(scene)
        try:
            async with asyncio.timeout(SERVING_SECONDS):
                while any(scene.states()[p].generation <= old for p, old in before.items()):  # noqa: ASYNC110 - a view
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise NothingHappenedError(
                f"ZooKeeper lost its data {SERVING_SECONDS:.0f} s ago, and no new generation is seen: {scene.states()}"
            ) from None
    return f"ZooKeeper's data wiped, down for {down:.1f} s, put back by the nodes"


def _ensemble(scene: Scene) -> asyncio.Lock:
    if scene.zookeeper.locked():
        raise NoVictimError
    return scene.zookeeper


async def _serve(scene: Scene) -> None:
    for member in scene.ensemble.members:
        if not member.running:
            await asyncio.to_thread(member.start)


# --- choice ----------------------------------------------------------------------------------------------------------

KINDS: tuple[Kind, ...] = (
    Kind("kill", 18, kill),
    Kind("kill_partition", 2, kill_partition),
    Kind("terminate", 7, terminate),
    Kind("freeze", 16, freeze),
    Kind("cut", 24, cut, _network),
    Kind("slow", 10, slow, _network),
    Kind("kill_zookeeper", 7, kill_zookeeper),
    Kind("freeze_zookeeper", 4, freeze_zookeeper),
    Kind("wipe_zookeeper", 1, wipe_zookeeper),
    Kind("step_clock", 7, step_clock),
    Kind("change_rate", 5, change_rate),
    Kind("fill_disk", 7, fill_disk, lambda scene: scene.disks.mounted),
    Kind("hang_disk", 6, hang_disk, lambda scene: scene.disks.real),
    Kind("power_off", 6, power_off, lambda scene: scene.disks.real),
    Kind("power_off_partition", 3, power_off_partition, lambda scene: scene.disks.real),
)
