"""A cluster of real processes in a temporary folder, and a load on it, for process-level tests.

    async with local_cluster(tmp_path) as cluster, under_load(cluster) as load:
        await load.flow()
        load.strike()
        await cluster.kill(await cluster.leader(0))   # by pod name; also terminate, freeze, thaw, restart
        await load.flow()
    load.judge()

`LocalCluster` (kvlocal.cluster) has the rest: addresses, state, leader, wait_leader, wait_in_sync.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kvclient import AsyncClient
from kvcommon.slotmap import SlotMap
from kvcommon.slots import slot_of
from kvlocal.cluster import LocalCluster, Settings
from kvlocal.processes import Exit
from kvlocal.shape import Shape
from tests.support.doors import ClientDoor
from tests.support.workload import Report, Workload, contended_keys

KEYS = 60
LEAST_RATE = 100.0  # acknowledged writes a second before a fault
WARM = 1.0  # seconds over which that is looked at
FLOW_SECONDS = 60.0


@asynccontextmanager
async def local_cluster(
    folder: Path,
    *,
    partitions: int = 1,
    replicas: int = 3,
    zookeeper: str = "",
    router: bool = True,
    word_of_death: bool = False,
    durability: str = "fsync",
    exits: list[Exit] | None = None,
) -> AsyncIterator[LocalCluster]:
    """A serving cluster, ended with the block. `zookeeper` is host:port,...; otherwise SQLite. `exits` gets every exit."""
    shape = Shape("t", partitions, replicas, min_in_sync=(replicas + 1) // 2, durability=durability)
    settings = Settings(zookeeper=zookeeper, with_router=router, word_of_death=word_of_death)
    heard = [] if exits is None else exits
    async with LocalCluster(shape, folder / "cluster", settings, on_exit=heard.append) as cluster:
        yield cluster


class LoadOnCluster:
    """Four clients on keys they fight over: two straight to the nodes, two through the router (none: all straight)."""

    def __init__(self, cluster: LocalCluster, workload: Workload) -> None:
        self.cluster = cluster
        self.workload = workload
        self.struck = workload.clock()
        self.has_struck = False
        self.report: Report | None = None

    def _rate(self, now: float) -> float:
        return self.workload.timeline.rate(now - WARM, now)

    def _is_warm(self) -> bool:
        return self.has_struck or self._rate(self.workload.clock()) >= 1.2 * LEAST_RATE

    async def flow(self, count: int = 100) -> None:
        """Until, from now on, so many writes were acknowledged in every partition; before the fault as fast as is asked for, too.

        Raises TimeoutError.
        """
        times = self.workload.timeline.acknowledged
        target = {p: len(times[p]) + count for p in range(self.cluster.shape.partitions)}
        async with asyncio.timeout(FLOW_SECONDS):
            while any(len(times[p]) < n for p, n in target.items()) or not self._is_warm():  # noqa: ASYNC110 - the load tells nobody
                await asyncio.sleep(0.02)

    def strike(self) -> None:
        """The moment of a fault; to be called just before it. Asserts that the load is what it is to be."""
        self.has_struck, self.struck = True, self.workload.clock()
        rate = self._rate(self.struck)
        assert rate >= LEAST_RATE, f"only {rate:.0f} acknowledged writes/s before the fault"

    def judge(self) -> Report:
        """Assert that every key's history is linearizable and nothing acknowledged is lost; print what was seen."""
        assert self.report is not None
        print(self.report.summary())
        for partition in range(self.cluster.shape.partitions):
            gap = self.report.timeline.gap(partition, self.struck, self.report.stopped)
            print(f"p{partition}: longest gap after the fault {gap:.2f} s")
        for trouble in self.report.troubles[:10]:
            print(f"{trouble.invoked - self.struck:+.2f} s {trouble}")
        faults = self.report.faults()
        assert not faults, f"{len(faults)} breaches of the promise:\n" + "\n".join(faults[:5])
        return self.report


@asynccontextmanager
async def under_load(cluster: LocalCluster, seed: int = 1) -> AsyncIterator[LoadOnCluster]:
    """The load runs inside the block; after it `judge` is ready. All keys are read once more at the end."""
    owners = SlotMap.even(cluster.shape.partitions).owners

    def where(key: bytes) -> int:
        return owners[slot_of(key)]

    nodes = [cluster.address(pod) for pod in cluster.shape.pods]
    direct = 2 if cluster.settings.with_router else 4
    doors = [ClientDoor(await AsyncClient.connect(nodes)) for _ in range(direct)]
    doors += [ClientDoor(await AsyncClient.connect(cluster.router_address, mode="router")) for _ in range(4 - direct)]
    keys = contended_keys(KEYS, where, range(cluster.shape.partitions), "k")
    workload = Workload(doors, keys, where, rng=random.Random(seed))
    stop, load = asyncio.Event(), LoadOnCluster(cluster, workload)
    running = asyncio.create_task(workload.run(stop))
    try:
        await load.flow(20)  # connections are made, maps are known
        started = workload.clock()
        yield load
        stop.set()
        await running
        stopped = workload.clock()
        final = await workload.settle()
        load.report = Report(workload.history, workload.timeline, workload.troubles, final, started, stopped)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        for door in doors:
            await door.close()
