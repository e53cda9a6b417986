"""Whether a client's reads of any age went back: behind what the same client had been told before."""

from collections.abc import Sequence
from typing import NamedTuple

from tests.support.history import History, Kind, Operation, Result


class StaleRead(NamedTuple):
    """A read that may be old, and what its session had observed when it began: a version of the key's partition, or 0."""

    operation: Operation
    observed: int


def went_back(reads: Sequence[StaleRead], operations: Sequence[Operation]) -> list[str]:
    """One sentence for each read of a state without something that is not newer than what its session had observed.

    Versions of a partition are in the order of its log: who has seen one has seen a state with all that is below it, of
    every key.
    """
    problems = []
    by_key = History(list(operations)).by_key()
    for read, observed in reads:
        if not observed or read.outcome.result not in (Result.OK, Result.NOT_FOUND):
            continue
        others = by_key.get(read.key, [])
        writes = [o for o in others if o.writes and (o.outcome.version or 0) <= observed]
        last = max(writes, key=lambda o: o.outcome.version or 0, default=None)
        if last is not None and _is_older(read, last, others):
            problems.append(
                f"{read.whose} had observed version {observed} when it read {read.key!r} -> {read.outcome} at "
                f"{read.returned:.6f}, without what {last.whose} wrote, {last.asks} -> {last.outcome}, {last.during}"
            )
    return problems


def _is_older(read: Operation, last: Operation, others: Sequence[Operation]) -> bool:
    """Whether what was read is from before this write. No key was there also after it, if it, or another one, deleted it."""
    version = last.outcome.version or 0
    if read.outcome.result is Result.OK:
        return (read.outcome.version or 0) < version
    if last.kind is Kind.DELETE:
        return False
    return not any(
        o.kind is Kind.DELETE and (o.outcome.result is Result.UNKNOWN or (o.outcome.version or 0) > version)
        for o in others
    )
