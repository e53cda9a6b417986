"""Replies as values, and their bytes in RESP2 and RESP3 (https://redis.io/docs/latest/develop/reference/protocol-spec/).

| Python | RESP2 | RESP3 |
|---|---|---|
| None | `$-1` | `_` |
| int | `:` | `:` |
| bytes, str | `$` | `$` |
| Simple | `+` | `+` |
| Error | `-` | `-` |
| Verbatim | `$` | `=` with `txt:` |
| list, tuple | `*` | `*` |
| Set | `*` | `~` |
| dict | `*`, keys and values in turn | `%` |
| bool | `:1`, `:0` | `#t`, `#f` |
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

OK = b"+OK\r\n"
PONG = b"+PONG\r\n"
EMPTY_ARRAY = b"*0\r\n"


class Simple(str):
    """A status line: `+OK`."""

    __slots__ = ()


class Error(str):
    """An error line, its kind first: `ERR syntax error`."""

    __slots__ = ()


class Verbatim(str):
    """Text for a person."""

    __slots__ = ()


class Set(tuple[Any, ...]):
    """Values whose order says nothing."""

    __slots__ = ()


Reply: TypeAlias = "int | bytes | str | Sequence[Reply] | Mapping[Any, Reply] | None"

SIMPLE_OK = Simple("OK")


def null(protocol: int) -> bytes:
    """No value."""
    return b"_\r\n" if protocol == 3 else b"$-1\r\n"


def integer(value: int) -> bytes:
    """A number."""
    return b":%d\r\n" % value


def bulk(value: bytes) -> bytes:
    """A value."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


def error(text: str) -> bytes:
    """An error, `text` with its kind first; what would end the line becomes a space."""
    return b"-%b\r\n" % _line(text)


def encode(reply: Reply, protocol: int) -> bytes:
    """A reply's bytes; `protocol` is 2 or 3. Raises TypeError for what is no reply."""
    parts: list[bytes] = []
    _encode(reply, protocol == 3, parts.append)
    return b"".join(parts)


def _encode(reply: Any, resp3: bool, add: Callable[[bytes], None]) -> None:
    if reply is None:
        add(b"_\r\n" if resp3 else b"$-1\r\n")
    elif isinstance(reply, bytes):
        add(bulk(reply))
    elif isinstance(reply, bool):
        add((b"#t\r\n" if reply else b"#f\r\n") if resp3 else b":%d\r\n" % reply)
    elif isinstance(reply, int):
        add(b":%d\r\n" % reply)
    elif isinstance(reply, str):
        _encode_text(reply, resp3, add)
    elif isinstance(reply, Mapping):
        add(b"%%%d\r\n" % len(reply) if resp3 else b"*%d\r\n" % (2 * len(reply)))
        for key, value in reply.items():
            _encode(key, resp3, add)
            _encode(value, resp3, add)
    elif isinstance(reply, Sequence):
        add(b"%b%d\r\n" % (b"~" if resp3 and isinstance(reply, Set) else b"*", len(reply)))
        for item in reply:
            _encode(item, resp3, add)
    else:
        msg = f"{type(reply).__name__} is no reply: {reply!r}"
        raise TypeError(msg)


def _encode_text(reply: str, resp3: bool, add: Callable[[bytes], None]) -> None:
    if isinstance(reply, Simple):
        add(b"+%b\r\n" % _line(reply))
    elif isinstance(reply, Error):
        add(b"-%b\r\n" % _line(reply))
    elif isinstance(reply, Verbatim) and resp3:
        data = reply.encode()
        add(b"=%d\r\ntxt:%b\r\n" % (len(data) + 4, data))
    else:
        add(bulk(reply.encode()))


def _line(text: str) -> bytes:
    """A line's bytes. Text that came from a client's bytes is latin-1 and goes out as it came in."""
    text = text.replace("\r", " ").replace("\n", " ")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()
