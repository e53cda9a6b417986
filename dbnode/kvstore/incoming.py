"""What is appended, checked: whole batches, each following the one before. Pure."""

from typing import NamedTuple

from kvstore.batch import BYTES, BatchHeader, check_batch, read_header
from kvstore.errors import CorruptionError, NotAdjoiningError
from kvstore.folded import Folded, fold_records
from kvstore.log import LogBatch


class Position(NamedTuple):
    """A place in a log: the index of a record and the epoch of its batch. (0, 0) is the beginning."""

    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here


BEGINNING = Position(0, 0)


class Incoming(NamedTuple):
    """Batches fit to be appended, what each changes, and where the log ends with them."""

    batches: list[LogBatch]
    folded: list[Folded]
    end: Position


def split(data: bytes, end: Position, *, trusted: bool, known: Folded | None = None) -> Incoming:
    """The batches that `data` is, which follow `end`.

    `trusted`: their checksums need not be verified. `known`: what `data`, one batch made here, changes; it is not read
    again then.
    Raises CorruptionError, FormatVersionError, NotAdjoiningError.
    """
    batches: list[LogBatch] = []
    folded: list[Folded] = []
    offset = 0
    while offset < len(data) or not batches:
        header = read_header(data, offset) if trusted else check_batch(data, offset)
        if header.length > len(data) - offset:
            raise CorruptionError(BYTES, offset, f"a batch of {header.length} bytes, cut off")
        folded.append(known or fold_records(data, header, offset))
        _check_follows(header, end)
        behind = offset + header.length
        whole = data if header.length == len(data) else data[offset:behind]
        batches.append(LogBatch(header, whole))
        end, offset = Position(header.epoch, header.last), behind
    return Incoming(batches, folded, end)


def _check_follows(header: BatchHeader, end: Position) -> None:
    if header.first != end.index + 1 or header.epoch < end.epoch or not header.epoch:
        msg = (
            f"a batch {header.first}..{header.last} of epoch {header.epoch} does not follow "
            f"index {end.index} of epoch {end.epoch}, where the log ends"
        )
        raise NotAdjoiningError(msg)
