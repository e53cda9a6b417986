"""The newest batches, in memory, so that followers are fed without reading the disk."""

from collections import deque
from typing import Final

from kvstore.batch import batch_behind
from kvstore.errors import BatchBoundaryError
from kvstore.log import LogBatch

_OVERHEAD: Final = 300  # bytes of objects around a batch


class RecentBatches:
    """The log's last batches without a hole: all that aren't durable, and as many more as `limit` bytes hold."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._batches: deque[LogBatch] = deque()
        self._bytes = 0

    def add(self, batch: LogBatch, durable: int) -> None:
        """Take the next batch, and let go of old ones up to index `durable`."""
        self._batches.append(batch)
        self._bytes += len(batch.data) + _OVERHEAD
        while self._bytes > self._limit and self._batches[0].header.last <= durable:
            self._bytes -= len(self._batches.popleft().data) + _OVERHEAD

    def read(self, after_index: int, max_bytes: int, horizon: int = 0) -> bytes | None:
        """Batches behind `after_index`, at least one, then up to `max_bytes`; None if the first isn't here.

        A copy of a compacted log has joined batches, too: of one that `after_index` is inside of, at or below `horizon`, the
        rest is given, as `Log.read` does. Raises BatchBoundaryError if `after_index` is inside another batch.
        """
        batches = self._batches
        if not batches or after_index + 1 < batches[0].header.first:
            return None
        low, high = 0, len(batches)
        while low < high:
            middle = (low + high) // 2
            if batches[middle].header.last > after_index:
                high = middle
            else:
                low = middle + 1
        return self._join(low, after_index, max_bytes, horizon)

    def _join(self, start: int, after_index: int, max_bytes: int, horizon: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        for at in range(start, len(self._batches)):
            batch = self._batches[at]
            if parts and size + len(batch.data) > max_bytes:
                break
            data = batch.data
            if batch.header.first <= after_index:
                if batch.header.last > horizon:
                    msg = f"index {after_index} is inside the batch {batch.header.first}..{batch.header.last}"
                    raise BatchBoundaryError(msg)
                data = batch_behind(data, after_index)
            parts.append(data)
            size += len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def cut(self, after_index: int) -> None:
        """Forget everything behind `after_index`."""
        while self._batches and self._batches[-1].header.first > after_index:
            self._bytes -= len(self._batches.pop().data) + _OVERHEAD
