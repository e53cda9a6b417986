"""Where two logs part: the last position they surely share (KIP-101, KIP-279)."""

from collections.abc import Sequence

from kvnode.core.types import START, EpochStart, Position


def end_of_epoch(epochs: Sequence[EpochStart], at: int, end: Position) -> int:
    """The last index that the epoch at place `at` of a log's table wrote."""
    return epochs[at + 1].first - 1 if at + 1 < len(epochs) else end.index


def parting(
    ours: Sequence[EpochStart], our_end: Position, theirs: Sequence[EpochStart], their_end: Position
) -> Position:
    """The last position that two logs share, given each log's table of epoch starts (ascending) and its end.

    An epoch has one writer (rule 1), so two logs that both hold records of it agree on them as far as the shorter goes,
    and on everything before. Going back over the tables to the newest epoch in both finds the point in one round.
    """
    our_place = {e: i for i, e in enumerate(ours)}
    for i in range(len(theirs) - 1, -1, -1):
        j = our_place.get(theirs[i])
        if j is not None:
            last = min(end_of_epoch(theirs, i, their_end), end_of_epoch(ours, j, our_end))
            return Position(theirs[i].epoch, last)
    return START


def next_epoch(epochs: Sequence[EpochStart], end: Position, index: int) -> int | None:
    """The epoch that wrote the record behind an index, in the log with this table and end; None where it ends there."""
    if index >= end.index:
        return None
    return next((e.epoch for e in reversed(epochs) if e.first <= index + 1), None)
