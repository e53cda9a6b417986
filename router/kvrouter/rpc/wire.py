"""gRPC over HTTP/2, as https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md has it: pure."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

PREFIX_BYTES: Final = 5  # a flag that says whether the message is compressed, and its length
OK, UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED = 0, 2, 4, 8
UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 12, 13, 14

Headers = Sequence[tuple[bytes, bytes]]
Metadata = Sequence[tuple[str, str | bytes]]

RESPONSE: Final[Headers] = ((b":status", b"200"), (b"content-type", b"application/grpc"))
OK_TRAILERS: Final[Headers] = ((b"grpc-status", b"0"),)
NOT_GRPC: Final[Headers] = ((b":status", b"415"),)

_UNITS: Final[Mapping[int, float]] = MappingProxyType(
    {ord("H"): 3600.0, ord("M"): 60.0, ord("S"): 1.0, ord("m"): 1e-3, ord("u"): 1e-6, ord("n"): 1e-9}
)
_PLAIN: Final = frozenset(range(0x20, 0x7F)) - {ord("%")}  # what grpc-message holds as it is
_MAX_TIMEOUT_DIGITS = 8


class RpcError(Exception):
    """A call that ends with this status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Request(NamedTuple):
    """What a call's headers say."""

    path: bytes
    timeout: float | None  # seconds
    headers: Mapping[bytes, bytes]  # of a name that comes more than once, the last


def read_request(headers: Headers) -> Request | None:
    """The call that the headers begin; None when they are not gRPC's. Raises RpcError for what we don't speak."""
    known = dict(headers)
    if known.get(b":method") != b"POST" or not known.get(b"content-type", b"").startswith(b"application/grpc"):
        return None
    encoding = known.get(b"grpc-encoding", b"identity")
    if encoding != b"identity":
        raise RpcError(
            UNIMPLEMENTED, f"messages compressed by {encoding.decode('latin-1')} are not taken; send identity"
        )
    timeout = known.get(b"grpc-timeout")
    return Request(known[b":path"], None if timeout is None else read_timeout(timeout), known)


def read_timeout(text: bytes) -> float:
    """Seconds of a grpc-timeout. Raises RpcError."""
    unit = _UNITS.get(text[-1]) if text else None
    if unit is None or not text[:-1].isdigit() or len(text) > _MAX_TIMEOUT_DIGITS + 1:
        raise RpcError(
            INTERNAL, f"grpc-timeout {text.decode('latin-1')!r} can't be read; 1 to 8 digits and one of HMSmun"
        )
    return int(text[:-1]) * unit


def framed(message: bytes) -> bytes:
    """A message behind its prefix."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def status(code: int, message: str = "", metadata: Metadata = ()) -> Headers:
    """Trailers."""
    told = [(b"grpc-status", b"%d" % code)]
    if message:
        told.append((b"grpc-message", percent_encoded(message)))
    for name, value in metadata:
        raw = value if isinstance(value, bytes) else value.encode("latin-1")
        told.append((name.encode("latin-1"), b64encode(raw).rstrip(b"=") if name.endswith("-bin") else raw))
    return told


def percent_encoded(message: str) -> bytes:
    """As grpc-message wants it: printable ASCII, all else as %XX of its UTF-8."""
    return b"".join(b"%c" % byte if byte in _PLAIN else b"%%%02X" % byte for byte in message.encode())


class Messages:
    """Puts a stream's messages together again. Holds no more than one message that is not whole, of the largest size."""

    __slots__ = ("_held", "_largest")

    def __init__(self, largest: int) -> None:
        self._held = bytearray()
        self._largest = largest

    @property
    def held(self) -> int:
        """Bytes of a message that is not whole yet."""
        return len(self._held)

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are whole now. Raises RpcError."""
        held = self._held
        held += data
        found: list[bytes] = []
        at = 0
        while len(held) - at >= PREFIX_BYTES:
            end = at + PREFIX_BYTES + message_bytes(held, at, self._largest)
            if len(held) < end:
                break
            found.append(bytes(held[at + PREFIX_BYTES : end]))
            at = end
        del held[:at]
        return found


def message_bytes(data: bytes | bytearray, at: int, largest: int) -> int:
    """The length in the prefix at `at`. Raises RpcError."""
    if data[at]:
        raise RpcError(INTERNAL, f"a message with flags {data[at]}; no compression was agreed on")
    length = int.from_bytes(data[at + 1 : at + PREFIX_BYTES], "big")
    if length > largest:
        raise RpcError(RESOURCE_EXHAUSTED, f"a message of {length} bytes; at most {largest} are taken")
    return length
