"""What a measurement is: rounds of it, their median and range, and who asked for which.

A series is measured once per round, and all series of a group take turns within a round: what else the machine does
meets all of them alike.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.machine import at_rest


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one series: a rate (operations per second) with latencies (seconds), or a plain value."""

    value: float
    p50: float | None = None
    p99: float | None = None
    p999: float | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """One cell of the table to be, at `row` and `column`: `measure` is called once per round."""

    row: str
    column: str
    unit: str
    measure: Callable[[], Awaitable[Sample]]


@dataclass
class Outcome:
    """All rounds of one series."""

    group: str
    row: str
    column: str
    unit: str
    samples: list[Sample] = field(default_factory=list)

    @property
    def median(self) -> float:
        return median(s.value for s in self.samples)

    @property
    def low(self) -> float:
        return min(s.value for s in self.samples)

    @property
    def high(self) -> float:
        return max(s.value for s in self.samples)

    def _latency(self, of: Callable[[Sample], float | None]) -> float | None:
        values = [v for v in map(of, self.samples) if v is not None]
        return median(values) if values else None

    @property
    def p50(self) -> float | None:
        """Median over the rounds of each round's median latency, in seconds."""
        return self._latency(lambda s: s.p50)

    @property
    def p99(self) -> float | None:
        """Median over the rounds of each round's 99th percentile, in seconds."""
        return self._latency(lambda s: s.p99)

    @property
    def p999(self) -> float | None:
        """The same of the 99.9th."""
        return self._latency(lambda s: s.p999)


async def interleaved(group: str, series: Sequence[Series], rounds: int, say: Callable[[str], None]) -> list[Outcome]:
    """Measure every series once per round, in turn, each with the machine at rest before it."""
    outcomes = [Outcome(group, s.row, s.column, s.unit) for s in series]
    for number in range(1, rounds + 1):
        for one, outcome in zip(series, outcomes, strict=True):
            await at_rest(say)
            sample = await one.measure()
            outcome.samples.append(sample)
            latency = f"  p50 {sample.p50 * 1e3:8.2f} ms" if sample.p50 is not None else ""
            say(f"round {number}/{rounds}  {one.row:<44} {one.column:<10} {sample.value:>12,.1f} {one.unit}{latency}")
    return outcomes


async def load(
    tasks: int, seconds: float, one: Callable[[int, int], Awaitable[object]], *, weight: int = 1, warm_up: float = 0.3
) -> Sample:
    """Run `one(task, count)` back to back in so many tasks; the rate counts `weight` operations per call.

    Calls that begin in the first `warm_up` seconds are made and not counted.
    """
    latencies: list[float] = []
    clock = time.perf_counter
    begin = clock() + warm_up
    end = begin + seconds

    async def worker(task: int) -> None:
        count = 0
        while (sent := clock()) < end:
            await one(task, count)
            count += 1
            if sent >= begin:
                latencies.append(clock() - sent)

    workers = [asyncio.create_task(worker(task)) for task in range(tasks)]
    try:
        await asyncio.gather(*workers)
    finally:
        for w in workers:
            w.cancel()
    took = clock() - begin
    return Sample(len(latencies) * weight / took, *percentiles(latencies, 0.5, 0.99, 0.999))


def percentiles(values: Sequence[float], *fractions: float) -> tuple[float, ...]:
    """Nearest-rank percentiles; raises ValueError without values."""
    if not values:
        raise ValueError("nothing was measured: not one call came back")
    ordered = sorted(values)
    return tuple(ordered[min(len(ordered) - 1, int(len(ordered) * f))] for f in fractions)
