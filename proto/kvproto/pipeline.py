"""Batches as frames on a TCP connection: what `KeyValue.Pipeline` carries, without gRPC. Pure; docs/pipeline.md.

    u32 length of what follows | u8 kind | u8 version | body

Little-endian. A request's numbers travel as columns (all kinds, then all key lengths, ...), keys and values behind them,
so that one call of `struct` packs or unpacks a whole column. An error travels as the API's `Error` message.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from google.protobuf.message import DecodeError

from kvproto.v1 import kv_pb2

VERSION: Final = 1
MAX_FRAME_BYTES: Final = 16 << 20  # above the largest batch and the largest answer

HELLO, REQUEST, ANSWER, END, PING = range(1, 6)

OperationTuple = tuple[int, bytes, bytes, int | None]
"""(kind, key, value, expected version or None); kinds are the API's numbers."""

ResultTuple = tuple[int, bytes, kv_pb2.Error | None]
"""(version, value, error or None)."""

_HEAD = struct.Struct("<IBB")
_LENGTH = struct.Struct("<I")
_REQUEST = struct.Struct("<16sQQQIIIIBB")
_ANSWER = struct.Struct("<QIB")
_MAGIC: Final = b"KVPL"
_WITH_EXPECTED: Final = 0x80  # in a kind: the operation has an expected version
_VALUES, _ERRORS = 1, 2  # an answer's columns beside the versions
_NO_CLIENT: Final = bytes(16)


class FrameError(ValueError):
    """Bytes that are no frame of ours; the connection ends."""


@dataclass(slots=True)
class Request:
    """A request: `BatchRequest` as plain values. `client_id` has 16 bytes, or none."""

    operations: Sequence[OperationTuple]
    id: int = 0
    client_id: bytes = b""
    sequence: int = 0
    age_ms: int = 0
    read_mode: int = 0
    max_lag_ms: int = 0
    observed_version: int = 0
    timeout_ms: int = 0


def frame(kind: int, body: bytes = b"") -> bytes:
    """A frame of another kind than a batch or an answer."""
    return _HEAD.pack(len(body) + 2, kind, VERSION) + body


HELLO_FRAME: Final = frame(HELLO, _MAGIC)
PING_FRAME: Final = frame(PING)


def encode_request(request: Request) -> bytes:
    """A request's frame. Raises struct.error for a number that its column can't hold."""
    operations = request.operations
    count = len(operations)
    kinds, keys, values, expected = zip(*operations, strict=True)
    columns = ""
    wanted: Sequence[int] = ()
    if expected.count(None) != count:
        kinds = tuple(k if e is None else k | _WITH_EXPECTED for k, e in zip(kinds, expected, strict=True))
        wanted = [e for e in expected if e is not None]
        columns = f"{len(wanted)}Q"
    numbers = struct.pack(f"<{count}B{count}H{count}I{columns}", *kinds, *map(len, keys), *map(len, values), *wanted)
    head = _REQUEST.pack(
        request.client_id or _NO_CLIENT,
        request.id,
        request.sequence,
        request.observed_version,
        request.age_ms,
        request.max_lag_ms,
        request.timeout_ms,
        count,
        request.read_mode,
        bool(request.client_id),
    )
    data = b"".join(chain.from_iterable(zip(keys, values, strict=True)))
    length = 2 + len(head) + len(numbers) + len(data)
    return b"".join((_HEAD.pack(length, REQUEST, VERSION), head, numbers, data))


def decode_request(body: bytes) -> Request:
    """A request's body. Raises FrameError."""
    try:
        client_id, number, sequence, observed, age, lag, timeout, count, mode, named = _REQUEST.unpack_from(body)
        at = _REQUEST.size
        columns = struct.Struct(f"<{count}B{count}H{count}I")
        numbers = columns.unpack_from(body, at)
        at += columns.size
        kinds, sizes = numbers[:count], zip(numbers[count : 2 * count], numbers[2 * count :], strict=True)
        operations: list[OperationTuple] = []
        if kinds and max(kinds) >= _WITH_EXPECTED:
            some = sum(k >= _WITH_EXPECTED for k in kinds)
            expected = iter(struct.unpack_from(f"<{some}Q", body, at))
            at += 8 * some
            for kind, (key_length, value_length) in zip(kinds, sizes, strict=True):
                middle = at + key_length
                end = middle + value_length
                wanted = next(expected) if kind >= _WITH_EXPECTED else None
                operations.append((kind & ~_WITH_EXPECTED, body[at:middle], body[middle:end], wanted))
                at = end
        else:
            for kind, (key_length, value_length) in zip(kinds, sizes, strict=True):
                middle = at + key_length
                end = middle + value_length
                operations.append((kind, body[at:middle], body[middle:end], None))
                at = end
    except struct.error as e:
        raise FrameError(f"a batch of {len(body)} bytes that is cut off: {e}") from e
    if at != len(body):
        raise FrameError(f"a batch of {len(body)} bytes whose operations end at {at}")
    return Request(operations, number, client_id if named else b"", sequence, age, mode, lag, observed, timeout)


def encode_answer(number: int, results: Sequence[ResultTuple]) -> bytes:
    """The frame of the answer to request `number`: one result per operation, in order."""
    count = len(results)
    versions, values, errors = zip(*results, strict=True)
    flags, columns, lengths = 0, "", ()
    data: bytes = b""
    if errors.count(None) != count:
        flags = _VALUES | _ERRORS
        parts = [v if e is None else e.SerializeToString() for v, e in zip(values, errors, strict=True)]
        lengths = (*map(len, parts), *(e is not None for e in errors))
        columns, data = f"{count}I{count}B", b"".join(parts)
    elif any(values):
        flags, lengths, columns, data = _VALUES, tuple(map(len, values)), f"{count}I", b"".join(values)
    numbers = struct.pack(f"<{count}Q{columns}", *versions, *lengths)
    head = _ANSWER.pack(number, count, flags)
    return b"".join((_HEAD.pack(2 + len(head) + len(numbers) + len(data), ANSWER, VERSION), head, numbers, data))


def decode_answer(body: bytes) -> tuple[int, list[ResultTuple]]:
    """(id of the request, its results) of an answer's body. Raises FrameError."""
    try:
        number, count, flags = _ANSWER.unpack_from(body)
        versions = struct.unpack_from(f"<{count}Q", body, _ANSWER.size)
        at = _ANSWER.size + 8 * count
        if not flags:
            results: list[ResultTuple] = [(version, b"", None) for version in versions]
        else:
            lengths = struct.unpack_from(f"<{count}I", body, at)
            at += 4 * count
            failed: Sequence[int] = ()
            if flags & _ERRORS:
                failed = struct.unpack_from(f"<{count}B", body, at)
                at += count
            results = []
            for version, length in zip(versions, lengths, strict=True):
                results.append((version, body[at : at + length], None))
                at += length
            for place in [i for i, bad in enumerate(failed) if bad]:
                version, value, _ = results[place]
                results[place] = (version, b"", kv_pb2.Error.FromString(value))
    except (struct.error, DecodeError) as e:
        raise FrameError(f"an answer of {len(body)} bytes that can't be read: {e}") from e
    if at != len(body):
        raise FrameError(f"an answer of {len(body)} bytes whose results end at {at}")
    return number, results


def check_hello(body: bytes) -> None:
    """Raise FrameError unless the other side speaks this protocol."""
    if body != _MAGIC:
        raise FrameError(f"{body[:8]!r} where {_MAGIC!r} begins every connection; is this the pipeline port?")


class Decoder:
    """Bytes in, (kind, body) out; holds at most one unfinished frame. Raises FrameError, then it is of no use."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._needed = _HEAD.size  # bytes without which nothing can be done

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that these bytes complete."""
        if self._parts:
            self._parts.append(data)
            self._size += len(data)
            if self._size < self._needed:
                return []
            data = b"".join(self._parts)
            self._parts = []
        frames: list[tuple[int, bytes]] = []
        at, size, needed = 0, len(data), _HEAD.size
        while size - at >= _HEAD.size:
            length, kind, version = _HEAD.unpack_from(data, at)
            if version != VERSION or not 2 <= length <= MAX_FRAME_BYTES:
                raise FrameError(
                    f"a frame of version {version} and {length} bytes; this release speaks version {VERSION}, "
                    f"and at most {MAX_FRAME_BYTES} bytes are possible"
                )
            end = at + _LENGTH.size + length
            if size < end:
                needed = _LENGTH.size + length
                break
            frames.append((kind, data[at + _HEAD.size : end]))
            at = end
        if at < size:
            rest = data[at:]
            self._parts, self._size, self._needed = [rest], len(rest), needed
        return frames
