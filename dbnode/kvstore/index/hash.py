"""The default index: a dict in memory, rebuilt from the log at start. About 140 bytes a key of 16 bytes."""

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from kvstore.index.base import SEGMENT_SHIFT

MAX_LISTED: Final = 100_000
"""Keys whose places are listed at once, while all else waits: a millisecond."""


class HashIndex:
    """A dict from key to place; see `kvstore.index.base.Index`."""

    applied = 0  # nothing of it survives a restart

    def __init__(self) -> None:
        self._places: dict[bytes, int] = {}
        self.get: Callable[[bytes], int | None] = self._places.get  # the dict's own: every read asks
        self._changing = threading.Lock()

    def put(self, keys: Sequence[bytes], places: Iterable[int], applied: int) -> None:  # noqa: ARG002
        with self._changing:
            self._places.update(zip(keys, places, strict=True))

    def apply(self, changes: Mapping[bytes, int | None], applied: int) -> None:  # noqa: ARG002  # an index on disk keeps it
        places = self._places
        with self._changing:
            for key, place in changes.items():
                if place is None:
                    places.pop(key, None)
                else:
                    places[key] = place

    def places_in(self, segments: Collection[int]) -> list[int] | None:
        if len(self._places) > MAX_LISTED:
            return None
        with self._changing:
            places = list(self._places.values())
        return [place for place in places if place >> SEGMENT_SHIFT in segments]

    def move(self, places: Iterable[tuple[bytes, int]], segments: Collection[int]) -> None:
        found = self._places
        with self._changing:
            for key, place in places:
                was = found.get(key)
                if was is not None and was >> SEGMENT_SHIFT in segments:
                    found[key] = place

    def keys(self) -> list[bytes]:
        return list(self._places)

    def clear(self) -> None:
        self._places.clear()

    def __len__(self) -> int:
        return len(self._places)
