"""Cuts what a node sends into single replies, without looking further into them than their lengths."""

from kvcommon.errors import KVClusterError

_BULKS = frozenset(b"$!=")
_AGGREGATES = {ord("*"): 1, ord("~"): 1, ord(">"): 1, ord("%"): 2}  # and how many parts an item has
_LINES = frozenset(b"+-:_#,(")


class ReplyError(KVClusterError):
    """What came is no reply of the Redis protocol: the other side is something else, or a byte was lost."""


class ReplySplitter:
    """Bytes in, whole raw replies out; what is incomplete waits for more."""

    def __init__(self) -> None:
        self._rest = b""
        self._scanned = 0  # how far into the rest its first reply has been read
        self._parts = 1  # of that reply that are still to come
        self._needed = 0  # length of the rest below which looking again is in vain

    def feed(self, data: bytes) -> list[bytes]:
        """The replies that are whole now. Raises ReplyError."""
        if self._rest:
            data = self._rest + data
            if len(data) < self._needed:
                self._rest = data
                return []
        replies: list[bytes] = []
        start, at, parts, size = 0, self._scanned, self._parts, len(data)
        needed = 0
        while True:
            end = data.find(b"\n", at)
            if end < 0:
                break
            kind = data[at]
            following = end + 1
            if kind in _BULKS:
                length = _integer(data, at, end)
                if length >= 0:
                    following += length + 2
                    if following > size:
                        needed = following
                        break
            elif kind not in _LINES:
                if kind not in _AGGREGATES:
                    raise ReplyError(f"a reply begins with {data[at : at + 20]!r}: is that a Redis port?")
                parts += _AGGREGATES[kind] * max(0, _integer(data, at, end))
            at = following
            parts -= 1
            if not parts:
                replies.append(data[start:at])
                start, parts = at, 1
        self._rest = data[start:]
        self._scanned, self._parts, self._needed = at - start, parts, needed - start
        return replies


def items_of(array: bytes) -> list[bytes]:
    """The raw items of an array that was received whole. Raises ReplyError for anything else."""
    if not array.startswith(b"*"):
        raise ReplyError(f"an array was expected, not {array[:40]!r}")
    return ReplySplitter().feed(array[array.index(b"\n") + 1 :])


def integer_of(reply: bytes) -> int:
    """The number of an integer reply. Raises ReplyError for anything else."""
    if not reply.startswith(b":"):
        raise ReplyError(f"an integer was expected, not {reply[:40]!r}")
    return _integer(reply, 0, len(reply) - 1)


def _integer(data: bytes, at: int, end: int) -> int:
    try:
        return int(data[at + 1 : end])
    except ValueError:
        raise ReplyError(f"{data[at:end]!r} has no length") from None
