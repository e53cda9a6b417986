"""Virtual time: one heap of calls, one seeded random generator, one timeline."""

import heapq
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

KEPT = 4000


class SimulationError(AssertionError):
    """An invariant is broken; the text says which, who and what."""


class Loop:
    """True time, in seconds, known to the simulator alone; machines see it through their clocks."""

    def __init__(self, seed: int, *, verbose: bool = False) -> None:
        self.now = 0.0
        self.rng = Random(seed)
        self.verbose = verbose
        self.lines: deque[tuple[float, str, str]] = deque(maxlen=None if verbose else KEPT)
        self.events = 0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []

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

    def note(self, who: str, what: str) -> None:
        """A line of the timeline."""
        self.lines.append((self.now, who, what))

    def fail(self, who: str, what: str) -> None:
        """An invariant is broken. Raises SimulationError."""
        self.note(who, f"BROKEN: {what}")
        raise SimulationError(f"at {self.now:.6f} s, {who}: {what}")

    def timeline(self, last: int | None = None) -> str:
        """The newest lines, oldest first."""
        lines = list(self.lines)[-last:] if last else list(self.lines)
        return "\n".join(f"{t:10.6f}  {who:<12} {what}" for t, who, what in lines)
