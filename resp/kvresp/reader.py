"""Commands from bytes, fast: hiredis for what looks as every client's library sends it, our own parser for the rest."""

import hiredis

from kvresp.errors import ProtocolError
from kvresp.parser import CommandParser

_STAR = 42
_LENGTHS = {b"$%d" % length: length for length in range(1025)}
_TWO, _THREE = b"*2", b"*3"
_LONGEST = len(b"*3\r\n") + 3 * (len(b"$1024\r\n") + 1024 + 2)  # of a command that `split_one` takes
_ALIKE = bytes.maketrans(b"~>|%123456789", b"****000000000")
_LONG = b"*00000"
_STRINGS = (b"+", b"=", b"(")
"""In values; or of types that hiredis takes for strings, and Redis for errors: then its commands are looked at again."""


class CommandReader:
    """One connection's input. Give it bytes with `feed`; it gives back the commands that are whole now.

    One short command of two or three arguments, which is what most clients send most of the time, is just split. hiredis
    only sees bytes that begin a command, and in which no array says a length of more than four digits (it would make
    room for whatever length is said). A command that is not whole at the end of the bytes, inline commands, absurd
    lengths and damaged input are the exact parser's, which goes on until it is at a boundary again.
    """

    __slots__ = ("_fast", "error", "exact")

    def __init__(self) -> None:
        self._fast = hiredis.Reader()
        self.exact: CommandParser | None = None
        """While it is in the middle of something, and once there is an error; None: `split_one` may do as well as `feed`."""
        self.error = ""
        """What the input died of: reply `-ERR ` and this behind the commands, and end the connection."""

    def feed(self, data: bytes) -> list[list[bytes]]:
        """The commands that are whole with these bytes, in order; none is empty. Look at `error` afterwards."""
        if self.exact is None:
            command = split_one(data)
            if command is not None:
                return [command]
        if self.error or not data:
            return []
        commands: list[list[bytes]] = []
        if self.exact is not None:
            data = self._finish(self.exact, data, commands)
            if not data:
                return commands
        self._feed_fast(data, commands)
        return commands

    def _feed_fast(self, data: bytes, commands: list[list[bytes]]) -> None:
        if not _looks_usual(data):
            self._feed_exact(data, commands)
            return
        fast, first, doubtful = self._fast, len(commands), any(mark in data for mark in _STRINGS)
        fast.feed(data)
        gets, has_data = fast.gets, fast.has_data
        try:
            while has_data():
                command = gets()
                if type(command) is not list:  # not whole (False), or nothing that is a command
                    break
                for argument in command:
                    if type(argument) is not bytes:
                        break
                else:
                    if command:
                        commands.append(command)
                        continue
                break
            else:
                if not doubtful or data == _packed(commands[first:]):
                    return
        except (hiredis.ProtocolError, hiredis.ReplyError, MemoryError):
            pass
        self._fast = hiredis.Reader()
        if doubtful and not data.startswith(_packed(commands[first:])):
            del commands[first:]
        self._feed_exact(data[sum(map(_length, commands[first:])) :], commands)

    def _feed_exact(self, data: bytes, commands: list[list[bytes]]) -> None:
        """All of it by the exact parser."""
        exact = self.exact = CommandParser()
        exact.feed(data)
        self._parse(exact, commands, at_most=len(data))
        if exact.idle and not self.error:
            self.exact = None

    def _finish(self, exact: CommandParser, data: bytes, commands: list[list[bytes]]) -> bytes:
        """The command under way by the exact parser; returns what is behind it."""
        exact.feed(data)
        self._parse(exact, commands, at_most=1)
        if self.error or not exact.at_boundary:
            return b""
        self.exact = None
        return exact.rest()

    def _parse(self, exact: CommandParser, commands: list[list[bytes]], *, at_most: int) -> None:
        try:
            for _ in range(at_most):
                command = exact.parse()
                if command is None:
                    break
                if command:
                    commands.append(command)
        except ProtocolError as e:
            self.error = str(e)


def split_one(data: bytes) -> list[bytes] | None:
    """The one command that the bytes are, two or three arguments of the lengths that are said; None: something else."""
    if len(data) > _LONGEST:
        return None
    parts = data.split(b"\r\n", 6)
    if len(parts) == 6:
        head, name_size, name, size, last, rest = parts
        if head == _TWO and _LENGTHS.get(size) == len(last) and _LENGTHS.get(name_size) == len(name) and not rest:
            return [name, last]
    elif len(parts) == 7:
        head, name_size, name, key_size, key, size, last = parts
        last = last[:-2]
        if (
            head == _THREE
            and _LENGTHS.get(size) == len(last)
            and _LENGTHS.get(key_size) == len(key)
            and _LENGTHS.get(name_size) == len(name)
            and data.endswith(b"\r\n")
        ):
            return [name, key, last]
    return None


def _looks_usual(data: bytes) -> bool:
    """Whether hiredis may see it: a star first, and nowhere, not even in a value, what it could take for a long array."""
    return data[0] == _STAR and _LONG not in data.translate(_ALIKE)


def _packed(commands: list[list[bytes]]) -> bytes:
    """The bytes that these commands are as arrays of bulk strings."""
    return b"".join(b"*%d\r\n%b" % (len(c), b"".join([b"$%d\r\n%b\r\n" % (len(a), a) for a in c])) for c in commands)


def _length(command: list[bytes]) -> int:
    """How many bytes a command took as an array of bulk strings."""
    return len(str(len(command))) + 3 + sum(len(a) + len(str(len(a))) + 5 for a in command)
