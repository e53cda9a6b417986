"""Frames that come over a stream in pieces of any size. Pure."""


class Pieces:
    """What came of a frame that isn't whole yet: kept as it came, and joined once."""

    def __init__(self, needed: int) -> None:
        """`needed`: bytes without which nothing can be done."""
        self._parts: list[bytes] = []
        self._size = 0
        self._needed = needed

    def join(self, data: bytes) -> bytes:
        """All that is there with these bytes; nothing while that is less than what is needed."""
        if not self._parts:
            return data
        self._parts.append(data)
        self._size += len(data)
        if self._size < self._needed:
            return b""
        data = b"".join(self._parts)
        self._parts = []
        return data

    def keep(self, rest: bytes, needed: int) -> None:
        """Bytes that are no whole frame, if there are any, for the next `join`; so many are needed with it."""
        if rest:
            self._parts, self._size, self._needed = [rest], len(rest), needed
