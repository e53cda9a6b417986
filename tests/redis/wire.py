"""A connection to a Redis server that shows raw bytes: what a client library would hide is what these tests compare."""

import socket
from types import TracebackType
from typing import Self

from tests.redis.notation import command

TIMEOUT = 20.0
_AGGREGATES = {b"*": 1, b"~": 1, b">": 1, b"%": 2}


class ConnectionEndedError(Exception):
    """The server ended the connection where a reply was due; `got` is the part of a reply that came."""

    def __init__(self, got: bytes) -> None:
        super().__init__(f"the server ended the connection after {got!r}")
        self.got = got


class RawConnection:
    """Sends bytes, returns each reply as the bytes it came in."""

    def __init__(self, address: tuple[str, int], timeout: float = TIMEOUT) -> None:
        self._socket = socket.create_connection(address, timeout=timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def call(self, *arguments: bytes) -> bytes:
        """One command's reply."""
        self.send(command(*arguments))
        return self.reply()

    def pipeline(self, commands: list[tuple[bytes, ...]]) -> list[bytes]:
        """All commands in one write, and all replies."""
        self.send(b"".join(command(*arguments) for arguments in commands))
        return [self.reply() for _ in commands]

    def reply(self) -> bytes:
        """One reply, as it came. Raises ConnectionEndedError."""
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise ConnectionEndedError(line)
        kind = line[:1]
        if kind in b"$=!":
            return line + self._body(line)
        if kind in _AGGREGATES:
            count = _AGGREGATES[kind] * max(0, int(line[1:]))
            return line + b"".join(self.reply() for _ in range(count))
        return line

    def ended(self) -> bool:
        """Whether the server ends the connection without another byte."""
        try:
            return self._file.read(1) == b""
        except ConnectionResetError:
            return True

    def _body(self, head: bytes) -> bytes:
        length = int(head[1:])
        if length < 0:
            return b""
        body = self._file.read(length + 2)
        if len(body) < length + 2:
            raise ConnectionEndedError(head + body)
        return body


def strings(reply: bytes) -> list[bytes]:
    """The bulk strings of a flat array."""
    parts, rest = [], reply.partition(b"\r\n")[2]
    while rest:
        head, _, rest = rest.partition(b"\r\n")
        assert head[:1] == b"$", f"not a bulk string: {head!r}"
        length = int(head[1:])
        parts.append(rest[:length])
        rest = rest[length + 2 :]
    return parts


def empty(connection: RawConnection) -> None:
    """Delete every key that SCAN shows, one by one, as keys may be of several slots."""
    cursor = b"0"
    while True:
        reply = connection.call(b"SCAN", cursor, b"COUNT", b"1000")
        assert reply.startswith(b"*2\r\n"), f"SCAN replied {reply!r}"
        length, _, rest = reply.removeprefix(b"*2\r\n").partition(b"\r\n")
        cursor, keys = rest[: int(length[1:])], strings(rest[int(length[1:]) + 2 :])
        for said in connection.pipeline([(b"DEL", key) for key in keys]) if keys else []:
            assert said[:1] == b":", f"DEL replied {said!r}"
        if cursor == b"0":
            return
