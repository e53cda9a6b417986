"""What is written at the end of a turn of the event loop: one write per connection, however many commands went in."""

import asyncio
from typing import Protocol


class Writer(Protocol):
    """A connection with something to write."""

    def flush(self) -> None:
        """Write all of it."""
        ...


class Turn:
    """Collects connections that have something to write, each once per turn; they keep that in mind themselves."""

    __slots__ = ("_loop", "_writers")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._writers: list[Writer] = []

    def add(self, writer: Writer) -> None:
        """Have the writer flushed soon; it must not be added again before."""
        if not self._writers:
            self._loop.call_soon(self._end)
        self._writers.append(writer)

    def _end(self) -> None:
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.flush()
