"""Commands from bytes, exactly as Redis reads them: arrays of bulk strings, inline commands, and its own errors.

In pure Python and incremental. `kvresp.reader` gives it only what hiredis is not to see: the rest is faster there.
Source: Redis's behaviour as its protocol specification and its error texts say it.
"""

from typing import Final

from kvresp.errors import ProtocolError
from kvresp.limits import MAX_ARGUMENTS, MAX_BULK_BYTES, MAX_COMMAND_BYTES, MAX_INLINE_BYTES

_STAR: Final = 42
_DOLLAR: Final = 36
_ESCAPES: Final = {ord("n"): 10, ord("r"): 13, ord("t"): 9, ord("b"): 8, ord("a"): 7}
_SPACE: Final = frozenset(b" \t\n\r\x0b\x0c\x00")
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")


class CommandParser:
    """Takes bytes as they come and gives out commands; a command is a list of arguments, its name first."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._args: list[bytes] = []
        self._missing = 0  # arguments of the command under way; 0: at a boundary
        self._bulk = -1  # length of the argument under way, -1: its header has not been read
        self._taken = 0  # bytes of the command under way that have left the buffer

    @property
    def idle(self) -> bool:
        """Whether everything it got was whole commands."""
        return not self._missing and not self._buffer

    def feed(self, data: bytes) -> None:
        """Take more bytes."""
        self._buffer += data

    def rest(self) -> bytes:
        """At a boundary: take back what was not parsed."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    @property
    def at_boundary(self) -> bool:
        """Whether the next byte begins a command."""
        return not self._missing

    def parse(self) -> list[bytes] | None:
        """The next command, [] for an empty one, None while it is not whole. Raises ProtocolError."""
        if not self._missing:
            if not self._buffer:
                return None
            if self._buffer[0] != _STAR:
                return self._parse_inline()
            count = self._header(b"multibulk", "too big mbulk count string")
            if count is None:
                return None
            if count > MAX_ARGUMENTS:
                raise ProtocolError("Protocol error: invalid multibulk length")
            if count <= 0:
                self._taken = 0
                return []
            self._args, self._missing = [], count
        while self._missing:
            if not self._parse_bulk():
                return None
        self._taken = 0
        return self._args

    def _parse_bulk(self) -> bool:
        """One more argument; False while it is not there. Raises ProtocolError."""
        buffer = self._buffer
        if self._bulk < 0:
            if buffer and buffer[0] != _DOLLAR:
                raise ProtocolError(f"Protocol error: expected '$', got '{chr(buffer[0])}'")
            length = self._header(b"bulk", "too big bulk count string")
            if length is None:
                return False
            if not 0 <= length <= MAX_BULK_BYTES:
                raise ProtocolError("Protocol error: invalid bulk length")
            self._bulk = length
            if self._taken + length > MAX_COMMAND_BYTES:
                raise ProtocolError(f"Protocol error: a command of more than {MAX_COMMAND_BYTES} bytes")
        end = self._bulk
        if len(buffer) < end + 2:
            return False
        self._args.append(bytes(buffer[:end]))
        del buffer[: end + 2]
        self._taken += end + 2
        self._missing -= 1
        self._bulk = -1
        return True

    def _header(self, kind: bytes, too_long: str) -> int | None:
        """The number on the header line, which leaves the buffer; None while the line is not whole."""
        buffer = self._buffer
        end = buffer.find(b"\r", 0, MAX_INLINE_BYTES + 2)
        if end < 0:
            if len(buffer) > MAX_INLINE_BYTES:
                raise ProtocolError(f"Protocol error: {too_long}")
            return None
        if len(buffer) < end + 2:
            return None
        number = _integer(bytes(buffer[1:end]))
        if number is None:
            raise ProtocolError(f"Protocol error: invalid {kind.decode()} length")
        del buffer[: end + 2]
        self._taken += end + 2
        return number

    def _parse_inline(self) -> list[bytes] | None:
        buffer = self._buffer
        end = buffer.find(b"\n", 0, MAX_INLINE_BYTES + 2)
        if end < 0:
            if len(buffer) > MAX_INLINE_BYTES:
                raise ProtocolError("Protocol error: too big inline request")
            return None
        line = bytes(buffer[:end])
        del buffer[: end + 1]
        args = split_line(line.removesuffix(b"\r"))
        if args is None:
            raise ProtocolError("Protocol error: unbalanced quotes in request")
        return args


def _integer(text: bytes) -> int | None:
    """A decimal number as Redis writes one: no plus, no leading zeros, no spaces; None for anything else."""
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit() or len(digits) > 19 or (digits[:1] == b"0" and text != b"0"):
        return None
    return int(text)


def split_line(line: bytes) -> list[bytes] | None:
    r"""An inline command's arguments: words, "quoted" with \n \r \t \b \a \xHH, 'quoted' with \'. None: unbalanced."""
    args: list[bytes] = []
    at, end = 0, len(line)
    while True:
        while at < end and line[at] in _SPACE:
            at += 1
        if at >= end:
            return args
        word = bytearray()
        while at < end and line[at] not in _SPACE:
            if line[at] in b"\"'":
                closed = _unquote(line, at, word)
                if closed is None or (closed < end and line[closed] not in _SPACE):
                    return None
                at = closed
                break
            word.append(line[at])
            at += 1
        args.append(bytes(word))


def _unquote(line: bytes, at: int, word: bytearray) -> int | None:
    """Add the quoted text that begins at `at` to the word; where it ends, or None if it doesn't."""
    quote = line[at]
    double = quote == ord('"')
    at += 1
    while at < len(line):
        char = line[at]
        if char == quote:
            return at + 1
        if double and line[at : at + 2] == b"\\x" and len(line) > at + 3 and {*line[at + 2 : at + 4]} <= _HEX:
            word.append(int(line[at + 2 : at + 4], 16))
            at += 4
        elif char == ord("\\") and at + 1 < len(line) and (double or line[at + 1] == quote):
            word.append(_ESCAPES.get(line[at + 1], line[at + 1]) if double else quote)
            at += 2
        else:
            word.append(char)
            at += 1
    return None
