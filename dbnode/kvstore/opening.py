"""A log found on the disk, taken into a store batch by batch."""

from collections.abc import Sequence
from pathlib import Path

from kvstore.applier import Applier
from kvstore.errors import CorruptionError
from kvstore.hint import Hint
from kvstore.incoming import BEGINNING, Position
from kvstore.log import LogBatch
from kvstore.meta import EPOCHS, EpochStart, epoch_at
from kvstore.segment import Segment


class Opening:
    """Takes a log in, in order: `kvstore.recovery.Visitor`. The applier holds what is committed of it, as far as known."""

    def __init__(self, directory: Path, epochs: Sequence[EpochStart], applier: Applier) -> None:
        self.end = BEGINNING
        self.known_commit = 0
        self.highest_version = 0
        self._epochs = epochs
        self._applier = applier
        self._directory = directory

    def visit_batch(self, batch: LogBatch, highest_version: int) -> None:
        """See `Visitor`. Raises CorruptionError."""
        header = batch.header
        self._check_epoch(header.epoch, header.first)
        self.end = Position(header.epoch, header.last)
        self.highest_version = max(self.highest_version, highest_version)
        self.know_committed(header.commit)
        self._applier.add(batch)
        self._applier.apply(self.known_commit)

    def visit_segment(self, segment: Segment, hint: Hint) -> None:
        """See `Visitor`. Raises CorruptionError."""
        for epoch, first in hint.epochs:
            self._check_epoch(epoch, first)
            self.end = Position(epoch, hint.last)
        self.highest_version = max(self.highest_version, hint.highest_version)
        self.know_committed(hint.as_of)
        self._applier.apply(segment.first - 1)
        self._applier.load(hint, segment.number)

    def know_committed(self, index: int) -> None:
        """Everything up to `index` is committed."""
        self.known_commit = max(self.known_commit, index)

    def _check_epoch(self, epoch: int, first: int) -> None:
        said = epoch_at(self._epochs, first)
        if said != epoch or epoch < self.end.epoch:
            what = f"says epoch {said} at index {first}, the log epoch {epoch}"
            raise CorruptionError(str(self._directory / EPOCHS), 0, what)
