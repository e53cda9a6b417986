"""Virtual time: one heap of calls."""

import heapq
from collections.abc import Callable
from typing import Any

from tests.simulation.record import Record


class Loop(Record):
    """A world whose parts are called at their time, one after the other."""

    def __init__(self, seed: int, *, verbose: bool = False) -> None:
        super().__init__(seed, verbose=verbose)
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
