"""Memory of a node, and the time from nothing to serving."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.machine import resident_mib
from bench.measure import Outcome, Sample
from bench.ours import ONE_PARTITION, Doors, one_partition, put_many
from bench.plan import Plan
from kvlocal.cluster import LocalCluster, Settings
from kvlocal.shape import Shape

BATCH = 500
MILLION = 1_000_000
MORE_HISTORY = 2  # times that every key is written again
STARTS = "From start to serving"
QUICKSTART = Shape("bench", partitions=3, replicas=3, min_in_sync=2)


async def memory(folder: Path, plan: Plan, say: Callable[[str], None]) -> list[Outcome]:
    """Resident memory of idle nodes, what keys add to it, and how long a node that has them takes to be ready again."""
    async with one_partition(folder) as doors:
        idle = _resident(doors)
        began = time.monotonic()
        await _write_all(doors, plan)
        say(f"{plan.keys:,} keys loaded in {time.monotonic() - began:.1f} s")
        full = _resident(doors)
        leader = await doors.cluster.leader(0)
        follower = next(pod for pod in idle if pod != leader)
        once = await _ready_again(doors, follower)
        for _ in range(MORE_HISTORY):
            await _write_all(doors, plan)
        often = await _ready_again(doors, follower)
    say(f"a killed follower is ready again after {once:.1f} s, with {1 + MORE_HISTORY} times the history {often:.1f} s")
    outcomes = [
        Outcome(
            STARTS, f"a killed node with {plan.keys:,} keys, each written {times}", "found again", "s", [Sample(took)]
        )
        for times, took in (("once", once), (f"{1 + MORE_HISTORY} times", often))
    ]
    for role, pods in (("leader", [leader]), ("follower", [p for p in idle if p != leader])):
        was = sum(idle[p] for p in pods) / len(pods)
        added = sum(full[p] - idle[p] for p in pods) / len(pods) * MILLION / plan.keys
        say(f"{role}: {was:.0f} MiB idle, {added:.0f} MiB per million keys")
        outcomes.append(Outcome("Memory of a node", "idle", role, "MiB", [Sample(was)]))
        outcomes.append(
            Outcome(
                "Memory of a node", f"per million keys, over idle ({plan.keys:,} loaded)", role, "MiB", [Sample(added)]
            )
        )
    return outcomes


async def _write_all(doors: Doors, plan: Plan) -> None:
    for at in range(0, plan.keys, BATCH):
        numbers = range(at, min(at + BATCH, plan.keys))
        await put_many(doors.direct, [(b"%016d" % n, b"v" * plan.value_bytes) for n in numbers])


async def _ready_again(doors: Doors, pod: str) -> float:
    """Seconds from the start of a killed node to its readiness: all that it has is known, and it follows."""
    await doors.cluster.kill(pod)
    began = time.monotonic()
    doors.cluster.restart(pod)
    await doors.cluster.wait_ready()
    return time.monotonic() - began


def _resident(doors: Doors) -> dict[str, float]:
    pids = {pod: doors.cluster.pid(pod) for pod in doors.cluster.shape.pods}
    return {pod: resident_mib(pid) for pod, pid in pids.items() if pid}


async def starts(folder: Path, plan: Plan, say: Callable[[str], None]) -> list[Outcome]:
    """Seconds from the first process's start to all ready: a new cluster, and one found again."""
    outcomes = []
    for row, shape, router in (
        ("1 partition x 3 replicas", ONE_PARTITION, False),
        ("3 partitions x 3 replicas and a router", QUICKSTART, True),
    ):
        new, again = (Outcome(STARTS, row, column, "s") for column in ("new", "found again"))
        for _ in range(plan.starts):
            with tempfile.TemporaryDirectory(dir=folder) as one:
                for outcome in (new, again):
                    outcome.samples.append(Sample(await _start(shape, Path(one) / "cluster", router)))
                    say(f"{row}, {outcome.column}: {outcome.samples[-1].value:.1f} s")
        outcomes += [new, again]
    return outcomes


async def _start(shape: Shape, folder: Path, router: bool) -> float:
    cluster = LocalCluster(shape, folder, Settings(with_router=router))
    began = time.monotonic()
    await cluster.start()
    took = time.monotonic() - began
    await cluster.stop()
    return took
