"""SCAN over an index that has no order: each scan goes through a list of the keys that were there when it began.

Redis's guarantee holds: a key that is there all the while is returned at least once. The list has references, 8 bytes a
key. A cursor says which list and where in it; one whose list is gone (too many scans since, another process, another
leader) begins a new list: keys are seen twice then, which the guarantee allows, and none is missed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kvresp.scan import Scan

MAX_SCANS = 64
MIN_SCANS = 4  # lists that are kept however long they are
MAX_LISTED = 8_000_000  # keys in all lists, 64 MB
_POSITION_BITS = 32
_NUMBER_BITS = 21  # together below 2**53, what a router can carry with a partition's number and JavaScript as a number


@dataclass(slots=True)
class _Running:
    keys: Sequence[bytes]
    next: int = 0
    before: int = 0  # where the last page began: the cursor of a client that asks again


class Scans:
    """The scans under way. `keys` makes a list of all keys, `exists` says whether one still is; `number` is random."""

    def __init__(
        self, keys: Callable[[], Sequence[bytes]], exists: Callable[[bytes], bool], number: Callable[[int], int]
    ) -> None:
        self._keys, self._exists, self._number = keys, exists, number
        self._running: dict[int, _Running] = {}  # least recently used first

    def page(self, scan: Scan) -> tuple[int, list[bytes]]:
        """The next cursor, 0 at the end, and keys."""
        number, at = scan.cursor >> _POSITION_BITS, scan.cursor & ((1 << _POSITION_BITS) - 1)
        running = self._running.pop(number, None)
        if scan.cursor == 0 or running is None or at not in (running.next, running.before):
            number, at, running = self._new_number(), 0, _Running(self._keys())
        end = at + scan.count
        page = scan.shown(key for key in running.keys[at:end] if self._exists(key))
        if end >= len(running.keys):
            return 0, page
        running.before, running.next = at, end
        self._running[number] = running
        self._forget()
        return number << _POSITION_BITS | end, page

    def _forget(self) -> None:
        """Let go of the lists that were used least recently, if there are too many or they are too long."""
        running = self._running
        listed = sum(len(r.keys) for r in running.values())
        while len(running) > MAX_SCANS or (listed > MAX_LISTED and len(running) > MIN_SCANS):
            listed -= len(running.pop(next(iter(running))).keys)

    def _new_number(self) -> int:
        while True:
            number = 1 + self._number((1 << _NUMBER_BITS) - 1)
            if number not in self._running:
                return number
