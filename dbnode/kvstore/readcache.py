"""Records read lately, in memory: a read from the file costs a system call, a checksum and three objects."""

from typing import Final

from kvstore.batch import Record

_OVERHEAD: Final = 300  # bytes of objects around a record, its key among them


class ReadCache:
    """Records by their places, of `limit` bytes about, in two generations.

    When the younger is full, what nobody asked for since it was begun is forgotten. Nothing in it is ever outdated: the
    place of a committed record never gets another. For one thread.
    """

    def __init__(self, limit: int) -> None:
        self.young: dict[int, Record] = {}
        """The younger generation, to be looked at first."""
        self._old: dict[int, Record] = {}
        self._limit = limit // 2
        self._bytes = 0  # of the younger

    def revive(self, place: int) -> Record | None:
        """A record that is not in `young`, from the older generation; None: it is in neither."""
        record = self._old.pop(place, None)
        if record is not None:
            self.add(place, record)
        return record

    def add(self, place: int, record: Record) -> None:
        """Keep a record, unless it would take all the room."""
        size = len(record[2]) + _OVERHEAD
        if size > self._limit:
            return
        self.young[place] = record
        self._bytes += size
        if self._bytes > self._limit:
            self._old, self.young, self._bytes = self.young, {}, 0
