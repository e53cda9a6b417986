"""The bare limits as series."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.bare import empty_batches, empty_calls, empty_server, fdatasync
from bench.measure import Outcome, Series, interleaved
from bench.plan import Plan
from bench.throughput import by_column


async def limits(folder: Path, plan: Plan, say: Callable[[str], None]) -> list[Outcome]:
    """Empty calls and batches by the same numbers of tasks, and fdatasync from one."""
    async with empty_server() as (_, channel):
        series = [
            Series(
                "fdatasync of a 4 KiB append",
                "1 task",
                "times/s",
                partial(asyncio.to_thread, fdatasync, folder, plan.seconds),
            )
        ]
        for tasks in plan.tasks:
            column = f"{tasks} task" + "s" * (tasks != 1)
            series.append(
                Series(
                    "empty unary grpc.aio call", column, "calls/s", partial(empty_calls, channel, tasks, plan.seconds)
                )
            )
            series.append(
                Series(
                    "empty batch on a stream", column, "batches/s", partial(empty_batches, channel, tasks, plan.seconds)
                )
            )
        return await interleaved("Bare limits", by_column(series), plan.rounds, say)
