"""Latency under load: undisturbed, with a follower catching up, during a hand-over of leadership, while logs are compacted."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.measure import Outcome, Sample, percentiles
from bench.ours import Doors, one_partition, put_many
from bench.plan import Plan
from bench.throughput import key_of
from kvlocal import probe
from kvlocal.cluster import Settings

WRITERS = 32
COMPACTIONS = 5  # of the leader, while it is measured
COMPACTING_SECONDS = 60.0  # at most
SMALL_SEGMENTS = Settings(node_arguments=("--segment-bytes", str(4 << 20)))
"""So that there is much to compact, and often."""
COMPACTED = re.compile(r"^kvcluster_node_compactions\{.*\} (\S+)$", re.MULTILINE)
GROUP = "Latency of puts under load, 32 tasks"


async def _latencies(doors: Doors, value: bytes, during: Awaitable[object]) -> list[float]:
    """Of every put that began while `during` went on."""
    found: list[float] = []
    over = asyncio.Event()

    async def write(task: int) -> None:
        count = 0
        while not over.is_set():
            sent = time.perf_counter()
            await doors.direct.put(key_of(task, count, 1000), value)
            found.append(time.perf_counter() - sent)
            count += 1

    writers = [asyncio.create_task(write(task)) for task in range(WRITERS)]
    try:
        await during
    finally:
        over.set()
        await asyncio.gather(*writers)
    return found


async def _catch_up(doors: Doors, pod: str) -> None:
    doors.cluster.restart(pod)
    await doors.cluster.wait_in_sync(0)


async def _hand_over(doors: Doors, plan: Plan) -> None:
    """The leader is asked to end, as before a roll, once in each half of the time."""
    for _ in range(2):
        await asyncio.sleep(plan.seconds / 2)
        leader, state = await doors.cluster.leader(0), await doors.cluster.state(0)
        await doors.cluster.terminate(leader)
        await doors.cluster.wait_leader(0, state.epoch)
        doors.cluster.restart(leader)
        await doors.cluster.wait_in_sync(0)


async def _leave_behind(doors: Doors, plan: Plan, value: bytes) -> str:
    """A follower that misses what is written meanwhile."""
    leader = await doors.cluster.leader(0)
    pod = next(p for p in doors.cluster.shape.pods if p != leader)
    await doors.cluster.kill(pod)
    for at in range(0, plan.missed, 500):
        await put_many(doors.direct, [(b"missed%010d" % n, value) for n in range(at, at + 500)])
    return pod


async def _compactions(doors: Doors) -> int:
    """Of the leader, since it began."""
    answer = await probe.ask(doors.cluster.port(doors.leader, "http"), "/metrics")
    found = COMPACTED.search(answer.body) if answer else None
    return int(float(found[1])) if found else 0


async def _compacting(doors: Doors, say: Callable[[str], None]) -> None:
    """Until the leader has compacted so often; the writes make the garbage."""
    before, began = await _compactions(doors), time.monotonic()
    while (done := await _compactions(doors) - before) < COMPACTIONS:
        if time.monotonic() - began > COMPACTING_SECONDS:
            break
        await asyncio.sleep(0.2)
    say(f"{done} compactions of the leader in {time.monotonic() - began:.1f} s")


async def disturbed(folder: Path, plan: Plan, say: Callable[[str], None]) -> list[Outcome]:
    """p50, p99, p99.9 and the longest put in each state."""
    value = b"v" * plan.value_bytes
    async with one_partition(folder / "default") as doors:
        rows = [("undisturbed", await _latencies(doors, value, asyncio.sleep(2 * plan.seconds)))]
        pod = await _leave_behind(doors, plan, value)
        rows.append(
            (
                f"a follower catches up with {plan.missed:,} records",
                await _latencies(doors, value, _catch_up(doors, pod)),
            )
        )
        rows.append(("leadership is handed over, twice", await _latencies(doors, value, _hand_over(doors, plan))))
    async with one_partition(folder / "small", settings=SMALL_SEGMENTS) as doors:
        rows.append(("logs in files of 4 MiB are compacted", await _latencies(doors, value, _compacting(doors, say))))
    outcomes = []
    for row, latencies in rows:
        p50, p99, p999 = percentiles(latencies, 0.5, 0.99, 0.999)
        figures = {"p50": p50, "p99": p99, "p99.9": p999, "longest": max(latencies)}
        say(f"{row}: {len(latencies)} puts, " + ", ".join(f"{c} {v * 1e3:.1f} ms" for c, v in figures.items()))
        outcomes += [Outcome(GROUP, row, c, "ms", [Sample(v * 1e3)]) for c, v in figures.items()]
        outcomes.append(Outcome(GROUP, row, "puts", "ms", [Sample(len(latencies))]))
    return outcomes
