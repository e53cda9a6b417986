"""Virtual time: one heap of calls, streams of seeded randomness, one timeline."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.simulation.timeline import Line, Mark, Timeline


@dataclass(frozen=True, slots=True)
class Failure:
    """What is broken: the invariant by its number (0: the code raised), when, seen in whose doing."""

    invariant: int
    at: float
    who: str
    what: str

    def __str__(self) -> str:
        what = f"invariant {self.invariant}" if self.invariant else "raised"
        return f"at {self.at:.6f} s, {self.who}: {what}: {self.what}"


class SimulationError(AssertionError):
    """An invariant is broken."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class Loop:
    """True time, in seconds, known to the simulator alone; machines see it through their clocks.

    Every part draws from a stream of its own, so that leaving out a fault or a request, as shrinking does, changes as
    little as possible of the rest.
    """

    def __init__(self, seed: int, *, verbose: bool = False) -> None:
        self.now = 0.0
        self.seed = seed
        self.verbose = verbose
        self.timeline = Timeline(verbose=verbose)
        self.events = 0
        self._streams: dict[str, Random] = {}
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []

    def stream(self, name: str) -> Random:
        """The randomness of one part of the world."""
        found = self._streams.get(name)
        if found is None:
            found = self._streams[name] = Random(f"{self.seed} {name}")
        return found

    def at(self, when: float, call: Callable[..., None], *args: Any) -> None:
        """Call it at this true time; calls of the same time run in the order they were asked for."""
        self.events += 1
        heapq.heappush(self._heap, (max(when, self.now), self.events, call, args))

    def after(self, delay: float, call: Callable[..., None], *args: Any) -> None:
        """Call it this many seconds from now."""
        self.at(self.now + delay, call, *args)

    def run(self, until: float) -> None:
        """Advance time to `until`."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, call, args = heapq.heappop(heap)
            call(*args)
        self.now = until

    def note(
        self,
        who: str,
        what: str,
        mark: Mark = Mark.NOTE,
        *,
        epoch: int | None = None,
        index: int | None = None,
        link: int = 0,
        detail: bool = False,
    ) -> None:
        """A line of the timeline."""
        self.timeline.add(Line(self.now, who, mark, what, epoch, index, link, detail))

    def fail(self, who: str, invariant: int, what: str) -> None:
        """An invariant is broken. Raises SimulationError."""
        self.note(who, what, Mark.BROKEN)
        raise SimulationError(Failure(invariant, self.now, who, what))
