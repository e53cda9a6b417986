"""Batches on their way from the thread that appends to the one that writes."""

import threading
from collections.abc import Sequence

from kvstore.errors import BatchBoundaryError
from kvstore.incoming import Position
from kvstore.log import LogBatch


class Handover:
    """A queue of batches that follow each other. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._batches: list[LogBatch] = []

    def put(self, batches: Sequence[LogBatch]) -> None:
        """Add at the end."""
        with self._lock:
            self._batches.extend(batches)

    @property
    def waiting(self) -> Sequence[LogBatch]:
        """All of them, which stay."""
        with self._lock:
            return tuple(self._batches)

    def take(self) -> list[LogBatch]:
        """All of them; the queue is empty then."""
        with self._lock:
            batches, self._batches = self._batches, []
        return batches

    def cut(self, after_index: int, durable: Position) -> Position:
        """Drop what is behind `after_index`, which isn't below `durable`, where the queue begins; the new end.

        Raises BatchBoundaryError, having dropped nothing.
        """
        with self._lock:
            kept = [b for b in self._batches if b.header.first <= after_index]
            last = kept[-1].header if kept else None
            end = Position(last.epoch, last.last) if last else durable
            if end.index != after_index:
                msg = f"index {after_index} is inside a batch, which ends at {end.index}; cut at a batch's end"
                raise BatchBoundaryError(msg)
            self._batches = kept
        return end
