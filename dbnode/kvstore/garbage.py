"""Which segments to compact. Pure."""

from collections.abc import Sequence
from typing import Final, NamedTuple

MERGE: Final = 4  # so many small segments are made one, garbage or not


class Weight(NamedTuple):
    """A segment's size in bytes, and how many of them still count, as far as known."""

    size: int
    live: int


def choose(weights: Sequence[Weight], *, segment_bytes: int, garbage: float) -> slice | None:
    """The run of adjacent segments that gains most; None if none is worth it.

    The output of a run is one segment of at most `segment_bytes`, as far as the weights are right. A run is worth it if
    the share `garbage` of it goes, or if MERGE segments become one.
    """
    best: tuple[float, int, slice] | None = None
    for start in range(len(weights)):
        size = live = 0
        for stop in range(start + 1, len(weights) + 1):
            size += weights[stop - 1].size
            live += weights[stop - 1].live
            count = stop - start
            if live > segment_bytes and count > 1:
                break
            gain = (size - live) / size
            if gain >= garbage or (count >= MERGE and live <= segment_bytes):
                best = max(best or (0.0, 0, slice(0)), (gain, count, slice(start, stop)), key=lambda b: b[:2])
    return best[2] if best else None
