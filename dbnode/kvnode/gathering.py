"""When single writes are made a log batch: not while the turns of the event loop bring more of them. Pure."""

from typing import Final

QUIET_TURNS: Final = 2
"""Turns without a write, after which no more are waited for. What one turn reads is queued in the next, so one says nothing."""
MOST_TURNS: Final = 20
ENOUGH: Final = 256
"""Writes that are a large batch: for each of more it would hardly be cheaper."""


class Gathering:
    """Asked in every turn whether to wait for the next.

    A batch costs each replica as much as dozens of writes do. Callers that were answered together ask again one after the
    other, as they wake up; were the first of them a batch, so would the next be, and all of them stayed small. Who writes
    alone is not made to wait.
    """

    def __init__(self) -> None:
        self._came = 0
        self._last_turn = 0  # how many had come by then
        self._last_batch = 0
        self._turns = self._quiet = 0

    def came(self, count: int) -> None:
        """So many writes were queued."""
        self._came += count

    def goes_on(self) -> bool:
        """Whether to wait for another turn. If not, what is queued is to be a batch, and all begins anew."""
        came = self._came
        self._quiet = self._quiet + 1 if came == self._last_turn else 0
        self._last_turn = came
        alone = came <= 1 and self._last_batch <= 1
        if alone or came >= ENOUGH or self._quiet >= QUIET_TURNS or self._turns >= MOST_TURNS:
            self._last_batch = came
            self._came = self._last_turn = self._turns = self._quiet = 0
            return False
        self._turns += 1
        return True
