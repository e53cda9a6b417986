"""What is noted of segments while their batches are committed, so that not every record need be looked at again."""

from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from kvstore.folded import Folded
from kvstore.index.base import Index, unpack_place
from kvstore.log import LogBatch
from kvstore.segment import HEADER_BYTES

MAX_OTHERS: Final = 1 << 20
"""Offsets that are kept of all segments but the newest, 4 bytes each; beyond it the oldest segments' notes go."""


@dataclass(slots=True)
class Note:
    """Of a segment as it was written, from its first batch to the one that ends at offset `end`.

    `others`: offsets of its records that are no PUT, in the order of the log. `records`: how many there are of any type,
    `highest` their highest version.
    """

    end: int = HEADER_BYTES
    records: int = 0
    highest: int = 0
    others: "array[int]" = field(default_factory=lambda: array("I"))


class Notes:
    """By segment number. One thread adds; another may ask for, and forget, what nothing is added to any more."""

    def __init__(self) -> None:
        self._of: dict[int, Note] = {}

    def add(self, batch: LogBatch, folded: Folded) -> None:
        """A segment's next batch, which is committed, and what it changes."""
        segment, offset, header = batch.segment, batch.offset, batch.header
        note = self._of.get(segment)
        if note is None:
            if offset != HEADER_BYTES:
                return
            self._make_room()
            note = self._of[segment] = Note()
        if note.end != offset:
            self.forget(segment)
            return
        note.end = offset + header.length
        note.records += header.count
        note.highest = max(note.highest, folded.highest)
        if folded.others:
            note.others.extend([offset + at for at in folded.others])

    def _make_room(self) -> None:
        notes = list(self._of.items())
        others = sum(len(note.others) for _, note in notes)
        for segment, note in notes:
            if others <= MAX_OTHERS:
                return
            self.forget(segment)
            others -= len(note.others)

    def of(self, segment: int, size: int) -> Note | None:
        """Of a segment of this size, if all of it was noted."""
        note = self._of.get(segment)
        return note if note is not None and note.end == size else None

    def forget(self, segment: int) -> None:
        """What is noted of a segment is of no use any more."""
        self._of.pop(segment, None)

    def clear(self) -> None:
        """Forget everything."""
        self._of.clear()


@dataclass(frozen=True, slots=True)
class Candidates:
    """The records of a segment that may count, by their `offsets`, ascending; `highest` is the highest version of all its records."""

    offsets: Sequence[int]
    highest: int

    def within(self, offset: int, length: int) -> list[int]:
        """Those of the batch there, from its beginning."""
        start = bisect_left(self.offsets, offset)
        return [at - offset for at in self.offsets[start : bisect_left(self.offsets, offset + length, start)]]


def find_candidates(notes: Mapping[int, Note], index: Index) -> Mapping[int, Candidates]:
    """By segment number, of the segments that were noted; none where there are more keys than records, or too many to be listed.

    Everything in these segments is committed, so no place that the index lacks now comes into it later.
    """
    if sum(note.records for note in notes.values()) < len(index):
        return {}
    places = index.places_in(notes.keys())
    if places is None:
        return {}
    offsets = {number: list(note.others) for number, note in notes.items()}
    for place in places:
        number, offset, _ = unpack_place(place)
        offsets[number].append(offset)
    return {number: Candidates(sorted(offsets[number]), note.highest) for number, note in notes.items()}
