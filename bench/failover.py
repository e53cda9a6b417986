"""How long writes pause when a leader is killed."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.measure import Outcome, Sample, percentiles
from bench.ours import Doors, one_partition
from bench.plan import Plan
from bench.throughput import key_of
from kvclient import AsyncClient
from kvcommon.errors import KVClusterError
from kvlocal.cluster import LocalCluster, Settings
from kvlocal.demo import longest_pause

WRITERS = 8
SETTLE = 0.5  # seconds of undisturbed load before each kill


@dataclass
class Load:
    """Writers that never stop, and when they were answered."""

    client: AsyncClient
    times: list[float] = field(default_factory=list)  # of acknowledgements
    failed: int = 0
    acknowledged: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self, task: int) -> None:
        """Puts until cancelled."""
        count = 0
        while True:
            try:
                await self.client.put(key_of(task, count, 1000), b"x" * 256)
            except KVClusterError:
                self.failed += 1
            else:
                self.times.append(time.monotonic())
                self.acknowledged.set()
            count += 1

    async def next(self) -> None:
        """Until one more write is acknowledged."""
        self.acknowledged.clear()
        await asyncio.wait_for(self.acknowledged.wait(), 60)


async def _gap(cluster: LocalCluster, load: Load) -> tuple[str, float]:
    """Kill the leader once; who it was and for how many seconds no write was acknowledged."""
    before = await cluster.state(0)
    victim = await cluster.leader(0)
    load.times.clear()
    await load.next()
    killed = time.monotonic()
    await cluster.kill(victim)
    await cluster.wait_leader(0, before.epoch)
    await load.next()
    return victim, longest_pause(load.times, killed)


async def _gaps(doors: Doors, kills: int, say: Callable[[str], None]) -> tuple[list[float], int]:
    cluster, load, gaps = doors.cluster, Load(doors.direct), []
    writers = [asyncio.create_task(load.write(task)) for task in range(WRITERS)]
    try:
        for number in range(1, kills + 1):
            await asyncio.sleep(SETTLE)
            victim, gap = await _gap(cluster, load)
            gaps.append(gap)
            say(f"kill {number}/{kills}  {victim}: writes paused for {gap:.2f} s")
            cluster.restart(victim)
            await cluster.wait_in_sync(0)
    finally:
        for writer in writers:
            writer.cancel()
    return gaps, load.failed


async def failovers(folder: Path, plan: Plan, say: Callable[[str], None]) -> list[Outcome]:
    """Gaps over the plan's kills, with and without somebody who tells of the death."""
    outcomes = []
    for row, told in (
        ("SIGKILL of the leader, lease runs out", False),
        ("SIGKILL of the leader, death told at once", True),
    ):
        async with one_partition(folder / f"told-{told}", settings=Settings(word_of_death=told)) as doors:
            gaps, failed = await _gaps(doors, plan.kills, say)
        p50, p95 = percentiles(gaps, 0.5, 0.95)
        figures = {"median": p50, "p95": p95, "longest": max(gaps), "shortest": min(gaps)}
        outcomes += [Outcome("Failover", row, c, "s", [Sample(v)]) for c, v in figures.items()]
        outcomes.append(Outcome("Failover", row, "failed writes", "s", [Sample(failed)]))
    return outcomes
