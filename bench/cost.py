"""CPU time per operation, of each process: what stays the same when others use the machine, too."""

import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from bench import ours
from bench.measure import Outcome, Sample, load
from bench.plan import Plan
from bench.throughput import BATCH, key_of
from kvclient import AsyncClient
from kvlocal.cluster import LocalCluster, Settings
from kvlocal.shape import Shape

APPLICATION = "application"
GROUP = "CPU time per operation"
_TICKS = os.sysconf("SC_CLK_TCK")

Request = Callable[[int, int], Awaitable[object]]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


async def measure_cost(
    pids: Mapping[str, int], tasks: int, seconds: float, request: Request, weight: int = 1
) -> dict[str, Sample]:
    """Microseconds of CPU per operation by process, the application's own among them."""
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    own, began = time.process_time(), time.perf_counter()
    sample = await load(tasks, seconds, request, weight=weight)
    own, took = time.process_time() - own, time.perf_counter() - began
    operations = sample.value * took
    spent = {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}
    return {name: Sample(cpu / operations * 1e6) for name, cpu in {APPLICATION: own, **spent}.items()}


async def costs(folder: Path, plan: Plan, say: Callable[[str], None]) -> list[Outcome]:
    """Of one partition with three replicas: puts, gets and batches by a Python application."""
    value = os.urandom(plan.value_bytes)
    outcomes: list[Outcome] = []
    async with ours.one_partition(folder) as doors:
        pids = doors.pids()
        pairs = [[(key_of(task, i, BATCH), value) for i in range(BATCH)] for task in range(8)]

        def put(task: int, count: int) -> Awaitable[object]:
            return doors.direct.put(key_of(task, count, plan.keys_per_task), value)

        def get(task: int, count: int) -> Awaitable[object]:
            return doors.direct.get(key_of(task, count, plan.keys_per_task))

        def many(task: int, _count: int) -> Awaitable[object]:
            return ours.put_many(doors.direct, pairs[task])

        shapes: Sequence[tuple[str, int, Request, int]] = (
            ("put, 1 task", 1, put, 1),
            ("put, 128 tasks", 128, put, 1),
            ("get, 1 task", 1, get, 1),
            ("get, 128 tasks", 128, get, 1),
            ("put in batches of 100, 8 tasks", 8, many, BATCH),
        )
        for row, tasks, request, weight in shapes:
            found = await measure_cost(pids, tasks, 2 * plan.seconds, request, weight)
            say(f"{row}: " + ", ".join(f"{name} {sample.value:.1f} us" for name, sample in found.items()))
            outcomes += [Outcome(GROUP, row, name, "us", [sample]) for name, sample in found.items()]
    return outcomes


async def scale(folder: Path, plan: Plan, say: Callable[[str], None]) -> list[Outcome]:
    """CPU of all processes per put, with one and with two partitions on the same cores."""
    value = os.urandom(plan.value_bytes)
    outcomes = []
    for partitions in (1, 2):
        shape = Shape("bench", partitions=partitions, replicas=3, min_in_sync=2)
        async with LocalCluster(shape, folder / str(partitions), Settings(with_router=False)) as cluster:
            pids = {pod: pid for pod in cluster.shape.pods if (pid := cluster.pid(pod))}
            async with await AsyncClient.connect([cluster.address(pod) for pod in cluster.shape.pods]) as client:
                tasks = 128 * partitions
                found = await measure_cost(
                    pids, tasks, 2 * plan.seconds, lambda t, n: client.put(key_of(t, n, plan.keys_per_task), value)
                )
        nodes = sum(sample.value for name, sample in found.items() if name != APPLICATION)
        row = f"{partitions} partition{'s' * (partitions > 1)} x 3 replicas, {tasks} tasks"
        say(f"{row}: nodes {nodes:.1f} us, application {found[APPLICATION].value:.1f} us per put")
        outcomes.append(Outcome("CPU per put by number of partitions", row, "all nodes", "us", [Sample(nodes)]))
        outcomes.append(Outcome("CPU per put by number of partitions", row, APPLICATION, "us", [found[APPLICATION]]))
    return outcomes
