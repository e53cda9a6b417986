"""What is judged on the log of a partition once all is over: it holds all that is committed."""

from collections.abc import Callable

from kvnode.core.types import START
from kvstore.batch import RecordType
from tests.simulation.checks import Checker
from tests.simulation.disk import Disk

CLIENT_ID_BYTES = 16  # at the beginning of a session record's key

Place = tuple[int, int]
"""Epoch and index."""


def check_log(checker: Checker, disk: Disk, where: str, request_of: Callable[[bytes, float], str]) -> None:
    """Invariants 14 and 20.

    `request_of` tells the request that a client, by its id, had under way at a time; `where` comes before what is wrong.
    """
    requests: dict[bytes, Place] = {}
    newest, before = 0, (0, 0)
    for batch in disk.log:
        for record in disk.payloads.of(batch).records:
            place = (batch.epoch, record.index)
            if record.type == RecordType.SESSION and (first := requests.setdefault(record.key, place)) != place:
                request = request_of(record.key[:CLIENT_ID_BYTES], _appended_at(checker, first))
                what = f"{request} took effect twice: {_told(checker, first)}, and {_told(checker, place)}"
                checker.loop.fail("log", 14, where + what)
            if record.version <= newest:
                this, other = (
                    f"version {v} {_told(checker, p)}" for v, p in ((record.version, place), (newest, before))
                )
                checker.loop.fail("log", 20, f"{where}{this} follows {other}")
            newest, before = record.version, place
    assert disk.end != START


def _appended_at(checker: Checker, place: Place) -> float:
    """When its leader appended it."""
    epoch, index = place
    return next((p.at for p in checker.proposed if p.epoch == epoch and p.first <= index <= p.last), 0.0)


def _told(checker: Checker, place: Place) -> str:
    """Where in the log, by whom and since when."""
    epoch, index = place
    writer = checker.writers.get(epoch)
    by = "" if writer is None else f" by {writer.run}"
    return f"at {epoch}:{index} (appended{by} at {_appended_at(checker, place):.6f} s)"
