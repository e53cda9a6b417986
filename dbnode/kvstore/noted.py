"""What is noted of segments while their batches are committed, so that not every record need be looked at again."""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from kvstore.folded import Folded
from kvstore.index.base import Index, unpack_place
from kvstore.log import LogBatch
from kvstore.segment import LONGEST_HEADER_BYTES
from kvstore.sessions import KEY_BYTES

MAX_NOTED: Final = 1 << 18
"""Records that are noted by themselves of all segments but the newest, 28 bytes each at most; beyond it the oldest segments' notes go."""


@dataclass(slots=True)
class Note:
    """Of a segment as it was written, from its first batch to the one that ends at offset `end` with index `last`, all of one epoch.

    `others`: offsets of its records that are neither PUT nor SESSION; `sessions`: those of the SESSION records, whose keys are
    `names`, one after the other; in the order of the log. `records`: how many there are of any type, `highest` their
    highest version.
    """

    epoch: int
    end: int
    last: int = 0
    records: int = 0
    highest: int = 0
    others: "array[int]" = field(default_factory=lambda: array("I"))
    sessions: "array[int]" = field(default_factory=lambda: array("I"))
    names: bytearray = field(default_factory=bytearray)

    @property
    def noted(self) -> int:
        """How many records are noted by themselves."""
        return len(self.others) + len(self.sessions)


class Notes:
    """By segment number. One thread adds; another may ask for, and forget, what nothing is added to any more."""

    def __init__(self) -> None:
        self._of: dict[int, Note] = {}

    def add(self, batch: LogBatch, folded: Folded) -> None:
        """A segment's next batch, which is committed, and what it changes."""
        segment, offset, header = batch.segment, batch.offset, batch.header
        note = self._of.get(segment)
        if note is None:
            if offset > LONGEST_HEADER_BYTES:  # not the first: any header and a batch are longer
                return
            self._make_room()
            note = self._of[segment] = Note(header.epoch, end=offset)
        if note.end != offset or note.epoch != header.epoch:
            self.forget(segment)
            return
        note.end, note.last = offset + header.length, header.last
        note.records += header.count
        note.highest = max(note.highest, folded.highest)
        if folded.others:
            note.others.extend([offset + at for at in folded.others])
        for key, _, _, at in folded.sessions:
            note.sessions.append(offset + at)
            note.names += key

    def _make_room(self) -> None:
        notes = list(self._of.items())
        noted = sum(note.noted for _, note in notes)
        for segment, note in notes:
            if noted <= MAX_NOTED:
                return
            self.forget(segment)
            noted -= note.noted

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
    """The records of a segment that may count: those at `offsets`, ascending, and the sessions in its note that are remembered."""

    offsets: Sequence[int]
    note: Note

    def within(self, offset: int, end: int, remembers: Callable[[bytes], bool]) -> list[int]:
        """The offsets of those between two others, ascending; of sessions those whose key is remembered now."""
        start = bisect_left(self.offsets, offset)
        found = self.offsets[start : bisect_left(self.offsets, end, start)]
        sessions, names = self.note.sessions, memoryview(self.note.names)
        first = bisect_left(sessions, offset)
        kept = [
            at
            for i, at in enumerate(sessions[first : bisect_left(sessions, end, first)], first)
            if remembers(bytes(names[i * KEY_BYTES : (i + 1) * KEY_BYTES]))
        ]
        return sorted([*found, *kept])


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
    return {number: Candidates(sorted(offsets[number]), note) for number, note in notes.items()}
