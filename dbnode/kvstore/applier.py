"""What is committed, made visible: records in log order into the index of keys and the table of sessions."""

from collections import deque

from kvstore.batch import HEADER_BYTES, RECORD_BYTES, RecordType, unpack_record
from kvstore.folded import Folded
from kvstore.hint import Hint
from kvstore.index.base import LENGTH_BITS, LENGTH_MASK, SEGMENT_SHIFT, Index
from kvstore.log import LogBatch
from kvstore.noted import Notes
from kvstore.sessions import Sessions

_PUT, _DELETE, _SESSION = int(RecordType.PUT), int(RecordType.DELETE), int(RecordType.SESSION)


class Applier:
    """Holds batches until they are committed, then folds them. For one thread."""

    def __init__(self, index: Index, sessions: Sessions) -> None:
        self.index = index
        self.sessions = sessions
        self.notes = Notes()
        """Of the segments that were applied since they were begun."""
        self.applied = 0
        """The log index up to which everything is folded."""
        self.pending_bytes = 0
        """Bytes of the batches that wait."""
        self._pending: deque[tuple[LogBatch, Folded | None]] = deque()

    def add(self, batch: LogBatch, folded: Folded | None = None) -> None:
        """A batch that follows the ones before; what it changes, if that is known already."""
        self._pending.append((batch, folded))
        self.pending_bytes += len(batch.data)

    def apply(self, upto: int) -> int:
        """Fold records of index `upto` and below; returns `applied`. Their batches must have been written."""
        pending = self._pending
        while pending and self.applied < upto and pending[0][0].header.first <= upto:
            batch, folded = pending[0]
            if folded is not None and self.applied < batch.header.first and batch.header.last <= upto:
                self._take(batch, folded)
            else:
                self._fold(batch, upto)
            self.applied = min(batch.header.last, upto)
            if batch.header.last > upto:
                break
            pending.popleft()
            self.pending_bytes -= len(batch.data)
        return self.applied

    def _take(self, batch: LogBatch, folded: Folded) -> None:
        """A whole batch of which it is known what it changes."""
        self.notes.add(batch, folded)
        base = batch.segment << SEGMENT_SHIFT | batch.offset << LENGTH_BITS
        for key, value, version, _ in folded.sessions:
            self.sessions.apply(key, value, version)
        if all(folded.places):
            self.index.put(folded.keys, map(base.__add__, folded.places), batch.header.last)
        else:
            places = [base + place if place else None for place in folded.places]
            self.index.apply(dict(zip(folded.keys, places, strict=True)), batch.header.last)

    def _fold(self, batch: LogBatch, upto: int) -> None:
        data, at, applied = batch.data, HEADER_BYTES, self.applied
        changes: dict[bytes, int | None] = {}
        place = batch.segment << SEGMENT_SHIFT | batch.offset << LENGTH_BITS
        for _ in range(batch.header.count):
            _, kind, key_length, value_length, index, version = unpack_record(data, at)
            if index > upto:
                break
            key_at = at + RECORD_BYTES
            value_at = key_at + key_length
            end = value_at + value_length
            if index > applied:
                if kind == _PUT:
                    changes[data[key_at:value_at]] = place + (at << LENGTH_BITS) + end - at
                elif kind == _DELETE:
                    changes[data[key_at:value_at]] = None
                elif kind == _SESSION:
                    self.sessions.apply(data[key_at:value_at], data[value_at:end], version)
            at = end
        self.index.apply(changes, min(batch.header.last, upto))

    def load(self, hint: Hint, segment: int) -> None:
        """Fold a whole segment, from its hint; everything before it is folded."""
        base = segment << SEGMENT_SHIFT
        self.index.apply(
            {k: base + p if p & LENGTH_MASK else None for k, p in zip(hint.keys(), hint.places, strict=True)}, hint.last
        )
        data, at = hint.sessions, 0
        while at < len(data):
            _, _, key_length, value_length, _, version = unpack_record(data, at)
            value_at = at + RECORD_BYTES + key_length
            self.sessions.apply(data[at + RECORD_BYTES : value_at], data[value_at : value_at + value_length], version)
            at = value_at + value_length
        self.applied = hint.last

    def cut(self, after_index: int) -> None:
        """Forget waiting batches behind `after_index`."""
        while self._pending and self._pending[-1][0].header.first > after_index:
            self.pending_bytes -= len(self._pending.pop()[0].data)

    def clear(self) -> None:
        """Forget everything."""
        self._pending.clear()
        self.index.clear()
        self.sessions.clear()
        self.notes.clear()
        self.applied = self.pending_bytes = 0
