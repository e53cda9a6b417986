"""A constant mixed load on a few contended keys that records what every client did and saw.

Knows nothing of Kubernetes, processes or gRPC: it is given doors (clients) and the map, and leaves a history for
`tests.support.linearizability` and a timeline of acknowledged writes per partition for gaps. Times are seconds on the
clock that it is given.

Each task stays with one partition, so a partition that stands still holds back nobody but its own tasks, and its gap is
not mistaken for another's.
"""

import asyncio
import time
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from threading import Thread
from types import TracebackType
from typing import Protocol, Self, TypeVar

from tests.support.history import History, Kind, Outcome, Result, lost_writes, version_violations
from tests.support.linearizability import check, format_violation

T = TypeVar("T")
TICK = 0.02  # seconds between two looks of a load at itself


class Door(Protocol):
    """One client. A definite refusal is Result.FAILED, an outcome that nobody knows Result.UNKNOWN; nothing is raised."""

    async def call(self, kind: Kind, key: bytes, value: bytes | None, expected_version: int | None) -> "Answer":
        """Do one operation and say how it ended."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """An outcome, and for FAILED and UNKNOWN why, for people."""

    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Trouble:
    """An operation that failed or whose outcome is unknown."""

    invoked: float
    returned: float
    partition: int
    kind: Kind
    result: Result
    reason: str

    def __str__(self) -> str:
        return f"p{self.partition} {self.kind.value} {self.result.value} after {self.returned - self.invoked:.2f} s: {self.reason}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What the load is: each of `doors` gets `tasks` tasks per partition; together they do `rate` operations a second."""

    rate: float = 360.0
    tasks: int = 2
    value_bytes: int = 32
    mix: tuple[tuple[Kind, int], ...] = (
        (Kind.GET, 35),
        (Kind.PUT, 30),
        (Kind.UPDATE, 20),
        (Kind.CREATE, 8),
        (Kind.DELETE, 7),
    )
    conditional: float = 0.4  # which share of puts, updates and deletes expects the version last seen


@dataclass
class Timeline:
    """When writes were acknowledged, per partition, ascending; and when the load itself stood still (from, until)."""

    acknowledged: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    stalls: list[tuple[float, float]] = field(default_factory=list)

    def pauses(self, partition: int, since: float, until: float) -> list[tuple[float, float]]:
        """The times (from, to) without an acknowledged write, within since..until; the first may have begun just before."""
        times = self.acknowledged[partition]
        first = max(bisect_right(times, since) - 1, 0)
        points = [*times[first : bisect_right(times, until)], until]
        if not times or times[0] > since:
            points.insert(0, since)
        return list(pairwise(points)) or [(since, until)]

    def gap(self, partition: int, since: float, until: float) -> float:
        """The longest of them, in seconds."""
        return max(ended - began for began, ended in self.pauses(partition, since, until))

    def gap_of_others(self, partition: int, since: float, until: float) -> float:
        """The longest of them, without the time in which the process of the load itself got nowhere."""
        pauses = self.pauses(partition, since, until)
        return max(ended - began - self.stood_still(began, ended) for began, ended in pauses)

    def stood_still(self, since: float, until: float) -> float:
        """For how long, within since..until, the process of the load itself got nowhere."""
        return sum(max(0.0, min(ended, until) - max(began, since)) for began, ended in self.stalls)

    def rate(self, since: float, until: float, partition: int | None = None) -> float:
        """Acknowledged writes a second, of one partition or of all."""
        chosen = self.acknowledged.values() if partition is None else [self.acknowledged[partition]]
        return sum(bisect_right(t, until) - bisect_left(t, since) for t in chosen) / (until - since)


def contended_keys(
    count: int, partition_of: Callable[[bytes], int], partitions: Collection[int], prefix: str
) -> list[bytes]:
    """`count` keys or a few more, as many of each partition."""
    wanted = {partition: -(-count // len(partitions)) for partition in partitions}
    keys = []
    number = 0
    while any(wanted.values()):
        key = f"{prefix}-{number}".encode()
        number += 1
        if wanted[partition_of(key)]:
            wanted[partition_of(key)] -= 1
            keys.append(key)
    return keys


class Workload:
    """Runs the load until told to stop; then `settle` reads each key once more."""

    def __init__(
        self,
        doors: Sequence[Door],
        keys: Sequence[bytes],
        partition_of: Callable[[bytes], int],
        *,
        plan: Plan | None = None,
        rng: Random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Each door is one client of the history."""
        self.doors = doors
        self.plan = plan or Plan()
        self.rng = rng
        self.clock = clock
        self.history = History()
        self.timeline = Timeline()
        self.troubles: list[Trouble] = []
        self.keys: dict[int, list[bytes]] = defaultdict(list)
        for key in keys:
            self.keys[partition_of(key)].append(key)
        self._seen: dict[bytes, int] = {}
        self._written = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Load until `stop` is set and the last calls have ended."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_itself(stop))
            for client, door in enumerate(self.doors):
                for partition in self.keys:
                    for _ in range(self.plan.tasks):
                        group.create_task(self._task(client, door, partition, stop))

    async def _watch_itself(self, stop: asyncio.Event) -> None:
        """Notice when the loop comes back late: such a time is this process's or its machine's, not the database's."""
        while not stop.is_set():
            due = self.clock() + TICK
            await asyncio.sleep(TICK)
            now = self.clock()
            if now - due > TICK:
                self.timeline.stalls.append((due, now))

    async def settle(self, door: Door | None = None) -> dict[bytes, int]:
        """Read every key once, record it, and give the versions of those present. Raises AssertionError if one can't be read.

        The first client reads, through its door or through another.
        """
        final = {}
        for partition, keys in self.keys.items():
            for key in keys:
                outcome = await self._call(0, door or self.doors[0], partition, Kind.GET, key, None, None)
                assert outcome.result in (Result.OK, Result.NOT_FOUND), f"read of {key!r}: {self.troubles[-1]}"
                if outcome.result is Result.OK:
                    final[key] = outcome.version or 0
        return final

    async def _task(self, client: int, door: Door, partition: int, stop: asyncio.Event) -> None:
        interval = len(self.doors) * len(self.keys) * self.plan.tasks / self.plan.rate
        due = self.clock() + self.rng.random() * interval
        while not stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), max(due - self.clock(), 0.0))
            if stop.is_set():
                return
            due = max(due, self.clock()) + interval * self.rng.uniform(0.8, 1.2)
            kind, key, value, expected = self._choose(client, partition)
            await self._call(client, door, partition, kind, key, value, expected)

    def _choose(self, client: int, partition: int) -> tuple[Kind, bytes, bytes | None, int | None]:
        kinds, weights = zip(*self.plan.mix, strict=True)
        kind: Kind = self.rng.choices(kinds, weights)[0]
        key = self.rng.choice(self.keys[partition])
        value = expected = None
        if kind in (Kind.PUT, Kind.CREATE, Kind.UPDATE):
            self._written += 1  # every value is written once, so that a read tells which write it saw
            value = f"{client}.{self._written}.".encode().ljust(self.plan.value_bytes, b"-")
        if kind in (Kind.PUT, Kind.UPDATE, Kind.DELETE) and self.rng.random() < self.plan.conditional:
            expected = self._seen.get(key)
            if kind is not Kind.PUT and expected == 0:
                expected = None
        return kind, key, value, expected

    async def _call(
        self, client: int, door: Door, partition: int, kind: Kind, key: bytes, value: bytes | None, expected: int | None
    ) -> Outcome:
        invoked = self.clock()
        answer = await door.call(kind, key, value, expected)
        returned, outcome = self.clock(), answer.outcome
        self.history.record(
            client,
            key,
            kind,
            invoked=invoked,
            returned=returned,
            outcome=outcome,
            value=value,
            expected_version=expected,
        )
        if outcome.result in (Result.FAILED, Result.UNKNOWN):
            self.troubles.append(Trouble(invoked, returned, partition, kind, outcome.result, answer.reason))
        elif outcome.result is Result.OK and kind is not Kind.GET:
            self.timeline.acknowledged[partition].append(returned)
        self._learn(key, kind, outcome)
        return outcome

    def _learn(self, key: bytes, kind: Kind, outcome: Outcome) -> None:
        if outcome.result is Result.NOT_FOUND or (kind is Kind.DELETE and outcome.result is Result.OK):
            self._seen[key] = 0
        elif outcome.version is not None:
            self._seen[key] = outcome.version


@dataclass(frozen=True)
class Report:
    """What a finished load saw. `final` has the versions of the keys that were there at the end."""

    history: History
    timeline: Timeline
    troubles: Sequence[Trouble]
    final: dict[bytes, int]
    started: float
    stopped: float

    def faults(self) -> list[str]:
        """Every breach of the promise: an answer that no order explains, versions going back, acknowledged writes lost."""
        found = [format_violation(violation) for violation in check(self.history)]
        return found + version_violations(self.history.operations) + lost_writes(self.history.operations, self.final)

    def troubles_between(self, since: float, until: float) -> list[Trouble]:
        """Failed and unknown operations that were under way in since..until."""
        return [trouble for trouble in self.troubles if trouble.returned >= since and trouble.invoked <= until]

    def summary(self) -> str:
        """Operations by their results, for people."""
        results = Counter(operation.outcome.result.value for operation in self.history)
        told = ", ".join(f"{count} {name}" for name, count in results.most_common())
        rate = self.timeline.rate(self.started, self.stopped)
        return f"{len(self.history)} operations in {self.stopped - self.started:.1f} s ({told}), {rate:.0f} acknowledged writes/s"


class LoopThread:
    """An event loop in a thread. grpc.aio wants one loop for the life of a process, so there is one: `shared`."""

    _shared: "LoopThread | None" = None

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        Thread(target=self.loop.run_forever, name="loop", daemon=True).start()

    @classmethod
    def shared(cls) -> "LoopThread":
        """The one of this process."""
        if cls._shared is None:
            cls._shared = cls()
        return cls._shared

    def submit(self, work: Coroutine[object, object, T]) -> "Future[T]":
        """Begin work on the loop, from another thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[object, object, T]) -> T:
        """Do work on the loop and wait for its end, in another thread."""
        return self.submit(work).result()


class BackgroundWorkload:
    """A workload on the shared loop's thread, so that a test may block while it breaks things.

    `open_workload` is awaited in that loop. Use it as a context manager; `finish` ends the load and gives the report.
    """

    def __init__(
        self, open_workload: Callable[[], Awaitable[Workload]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._open = open_workload
        self.clock = clock
        self._threads = LoopThread.shared()
        self._stop = asyncio.Event()
        self._workload: Workload | None = None
        self._running: Future[Report] | None = None

    def __enter__(self) -> Self:
        self._workload = self._threads.run(self._opened())
        self._running = self._threads.submit(self._run(self._workload))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._running is not None
        self._threads.loop.call_soon_threadsafe(self._stop.set)
        wait([self._running])

    @property
    def workload(self) -> Workload:
        """What runs."""
        assert self._workload is not None, "the load was not begun"
        return self._workload

    @property
    def timeline(self) -> Timeline:
        """The timeline so far; it goes on growing while it is looked at."""
        return self.workload.timeline

    def acknowledged_since(self, partition: int, moment: float) -> int:
        """How many writes of a partition were acknowledged after a moment. Raises what ended the load, if something did."""
        if self._running is not None and self._running.done():
            self._running.result()
        times = self.timeline.acknowledged[partition]
        return len(times) - bisect_right(times, moment)

    def finish(self) -> Report:
        """Stop the load, wait for its last calls, read all keys. Raises what ended the load, if something did."""
        assert self._running is not None
        self._threads.loop.call_soon_threadsafe(self._stop.set)
        return self._running.result()

    async def _opened(self) -> Workload:
        return await self._open()

    async def _run(self, workload: Workload) -> Report:
        started = self.clock()
        try:
            await workload.run(self._stop)
            stopped = self.clock()
            final = await workload.settle()
            return Report(workload.history, workload.timeline, workload.troubles, final, started, stopped)
        finally:
            for door in workload.doors:
                await door.close()
