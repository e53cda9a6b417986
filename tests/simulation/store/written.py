"""What was appended: batches with the state they lead to, and logs made of them."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from kvstore.batch import BatchHeader, Record, RecordType, iter_records, read_header

State = dict[bytes, Record]
"""The newest record of each key that has a value, and of each (client, sequence)."""


def fold_in(state: State, record: Record) -> None:
    """What one record changes."""
    if record.type in (RecordType.PUT, RecordType.SESSION):
        state[record.key] = record
    elif record.type == RecordType.DELETE:
        state.pop(record.key, None)


def fold(records: Iterable[Record]) -> State:
    """The state after these records."""
    state: State = {}
    for record in records:
        fold_in(state, record)
    return state


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """A batch as its leader made it. `before`: the state that it changes, `state`: the one after it."""

    header: BatchHeader
    data: bytes
    records: tuple[Record, ...]
    before: State
    state: State

    @property
    def last(self) -> int:
        return self.header.last


class WrittenLog:
    """All batches of a log, none compacted. Logs that share a batch share all before it."""

    def __init__(self) -> None:
        self.batches: list[Written] = []

    @property
    def end(self) -> tuple[int, int]:
        """Epoch and index."""
        return (self.batches[-1].header.epoch, self.batches[-1].last) if self.batches else (0, 0)

    def add(self, data: bytes) -> Written:
        """One batch that follows."""
        records = tuple(iter_records(data))
        before = self.batches[-1].state if self.batches else {}
        state = dict(before)
        for record in records:
            fold_in(state, record)
        self.batches.append(Written(read_header(data), data, records, before, state))
        return self.batches[-1]

    def copy(self, other: "WrittenLog", last: int) -> None:
        """Go on with what `other` has, up to a batch's end."""
        self.batches += other.batches[len(self.batches) : other.count(last)]

    def count(self, index: int) -> int:
        """How many whole batches there are up to an index."""
        return bisect_right(self.batches, index, key=lambda b: b.last)

    def is_end(self, index: int) -> bool:
        """Whether a batch ends there, or the log begins."""
        number = self.count(index)
        return index == (self.batches[number - 1].last if number else 0)

    def holding(self, index: int) -> Written | None:
        """The batch that has this index."""
        number = bisect_left(self.batches, index, key=lambda b: b.last)
        return self.batches[number] if index > 0 and number < len(self.batches) else None

    def cut(self, after: int) -> None:
        del self.batches[self.count(after) :]

    def state(self, index: int) -> State:
        """Up to an index that is in the log."""
        batch = self.holding(index)
        if batch is None or index == batch.last:
            return batch.state if batch else {}
        state = dict(batch.before)
        for record in batch.records:
            if record.index <= index:
                fold_in(state, record)
        return state

    def epochs(self) -> tuple[tuple[int, int], ...]:
        """(epoch, first index) of each."""
        starts: dict[int, int] = {}
        for batch in self.batches:
            starts.setdefault(batch.header.epoch, batch.header.first)
        return tuple(starts.items())

    def told(self) -> int:
        """The highest commit index that any batch tells of; it grows in the order of the log, but for new leaders."""
        return max((b.header.commit for b in self.batches), default=0)

    def records(self) -> list[Record]:
        return [r for b in self.batches for r in b.records]
