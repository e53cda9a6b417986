"""Commands from bytes, fast: hiredis for what looks as every client's library sends it, our own parser for the rest."""

import hiredis

from kvresp.errors import ProtocolError
from kvresp.parser import CommandParser

_STAR = 42
_NEWLINE = 10
_LONGEST_HEADER = 6  # `*9999` and the carriage return behind it


class CommandReader:
    """One connection's input. Give it bytes with `feed`; it gives back the commands that are whole now.

    hiredis only sees bytes that begin a command, and in which each array says a length of at most four digits (it would
    make room for whatever length is said). A command that is not whole at the end of the bytes, inline commands,
    absurd lengths and damaged input are the exact parser's, which goes on until it is at a boundary again.
    """

    __slots__ = ("_exact", "_fast", "error")

    def __init__(self) -> None:
        self._fast = hiredis.Reader()
        self._exact: CommandParser | None = None  # while it is in the middle of something
        self.error = ""
        """What the input died of: reply `-ERR ` and this behind the commands, and end the connection."""

    def feed(self, data: bytes) -> list[list[bytes]]:
        """The commands that are whole with these bytes, in order; none is empty. Look at `error` afterwards."""
        if self.error or not data:
            return []
        commands: list[list[bytes]] = []
        if self._exact is not None:
            data = self._finish(self._exact, data, commands)
            if not data:
                return commands
        self._feed_fast(data, commands)
        return commands

    def _feed_fast(self, data: bytes, commands: list[list[bytes]]) -> None:
        if not _looks_usual(data):
            self._feed_exact(data, commands)
            return
        fast, first = self._fast, len(commands)
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
                return
        except (hiredis.ProtocolError, hiredis.ReplyError, MemoryError):
            pass
        self._fast = hiredis.Reader()
        self._feed_exact(data[sum(map(_length, commands[first:])) :], commands)

    def _feed_exact(self, data: bytes, commands: list[list[bytes]]) -> None:
        """All of it by the exact parser."""
        exact = self._exact = CommandParser()
        exact.feed(data)
        self._parse(exact, commands, at_most=len(data))
        if exact.idle:
            self._exact = None

    def _finish(self, exact: CommandParser, data: bytes, commands: list[list[bytes]]) -> bytes:
        """The command under way by the exact parser; returns what is behind it."""
        exact.feed(data)
        self._parse(exact, commands, at_most=1)
        if self.error or not exact.at_boundary:
            return b""
        self._exact = None
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


def _looks_usual(data: bytes) -> bool:
    """Whether hiredis may see it: a star first, and every star that begins a line has few digits behind it."""
    if data[0] != _STAR:
        return False
    find, at = data.find, 0
    for _ in range(len(data) >> 3):  # a pipeline of the shortest commands has fewer stars than that
        if (at == 0 or data[at - 1] == _NEWLINE) and find(b"\r", at + 2, at + _LONGEST_HEADER) < 0:
            return False
        at = find(b"*", at + 1)
        if at < 0:
            return True
    return False


def _length(command: list[bytes]) -> int:
    """How many bytes a command took as an array of bulk strings."""
    return len(str(len(command))) + 3 + sum(len(a) + len(str(len(a))) + 5 for a in command)
