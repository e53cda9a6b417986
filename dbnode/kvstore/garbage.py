"""Which segments to compact. Pure."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

MERGE: Final = 4  # so many small segments are made one, garbage or not
LONGEST: Final = 16  # segments in a run, so that a crash or a new start loses no hours of work


class Weight(NamedTuple):
    """A segment's size in bytes, and how many of them still count, as far as known.

    `blocked` of the live ones are deletes that may go once all segments before are clean. `last` is the segment's last
    index, `clean_to` as in its header. `deletes`: some were seen in it.
    """

    size: int
    live: int
    blocked: int = 0
    last: int = 0
    clean_to: int = 0
    deletes: bool = False


def choose(weights: Sequence[Weight], *, segment_bytes: int, garbage: float) -> slice | None:
    """The run of adjacent segments that gains most; None if none is worth it.

    The output of a run is one segment of at most `segment_bytes`, as far as the weights are right. A run is worth it if
    the share `garbage` of it goes, or if MERGE segments become one; or if it is what keeps that share of the whole,
    deletes that hide nothing any more, from going.
    """
    best: tuple[float, int, slice] | None = None
    for start in range(len(weights)):
        size = live = 0
        for stop in _stops(weights, start, segment_bytes):
            size += weights[stop - 1].size
            live += weights[stop - 1].live
            count = stop - start
            gain = (size - live) / size
            if gain >= garbage or (count >= MERGE and live <= segment_bytes):
                best = max(best or (0.0, 0, slice(0)), (gain, count, slice(start, stop)), key=lambda b: b[:2])
    return best[2] if best else _blocking(weights, segment_bytes, garbage)


def _stops(weights: Sequence[Weight], start: int, segment_bytes: int) -> Iterator[int]:
    """Where a run from `start` may stop, so that its output is one segment."""
    live = 0
    for stop in range(start + 1, min(start + LONGEST, len(weights)) + 1):
        live += weights[stop - 1].live
        if live > segment_bytes and stop - start > 1:
            return
        yield stop


def _blocking(weights: Sequence[Weight], segment_bytes: int, garbage: float) -> slice | None:
    """The oldest run that deletes behind it wait for, if enough of them do."""
    waiting = [i for i, w in enumerate(weights) if w.blocked]
    if not waiting or sum(w.blocked for w in weights) < garbage * sum(w.size for w in weights):
        return None
    upto = weights[waiting[-1]].last
    start = next((i for i, w in enumerate(weights[: waiting[-1]]) if w.clean_to < upto), None)
    return None if start is None else slice(start, max(_stops(weights[: waiting[-1]], start, segment_bytes)))
