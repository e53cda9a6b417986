"""Batches as frames on a TCP connection: what `KeyValue.Pipeline` carries, without gRPC. Pure; docs/pipeline.md.

    u32 length of what follows | u8 kind | u8 version | body

Little-endian. Everything travels as columns (all kinds, then all key lengths, ... then all keys, then all values), so
that one call of a C function packs or unpacks a whole column. An error travels as the API's `Error` message.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, repeat
from operator import itemgetter
from typing import Final, overload

from google.protobuf.message import DecodeError

from kvproto.pieces import Pieces
from kvproto.v1 import kv_pb2

VERSION: Final = 1
MAX_FRAME_BYTES: Final = 16 << 20  # above the largest batch and the largest answer
MAX_RESULTS: Final = 1 << 20  # of one answer: a few bytes can't ask for more memory than a frame may have

HELLO, REQUEST, ANSWER, END, PING = range(1, 6)

OperationTuple = tuple[int, bytes, bytes, int | None]
"""(kind, key, value, expected version or None); kinds are the API's numbers."""

ResultTuple = tuple[int, bytes, kv_pb2.Error | None]
"""(version, value, error or None)."""

_ERROR = itemgetter(2)  # of a result
_HEAD = struct.Struct("<IBB")
_LENGTH = struct.Struct("<I")
_REQUEST = struct.Struct("<16sQQQIIIIBB")
_ANSWER = struct.Struct("<QIB")
# One operation without a condition and one record, whole: what a caller that waits for each answer sends and gets.
_ONE_REQUEST = struct.Struct("<IBB16sQQQIIIIBBBHI")
_ONE_GET = struct.Struct("<16xQ8xQ4xI4xIBBBHI")
_ONE_FRAME = struct.Struct("<IBBQIBQI")
_ONE_RECORD = struct.Struct("<QIBQI")
_MAGIC: Final = b"KVPL"
_GET: Final = int(kv_pb2.OPERATION_KIND_GET)
_LINEARIZABLE: Final = (int(kv_pb2.READ_MODE_UNSPECIFIED), int(kv_pb2.READ_MODE_LINEARIZABLE))
_WITH_EXPECTED: Final = 0x80  # in a kind: the operation has an expected version
_VALUES, _ERRORS = 1, 2  # an answer's columns beside the versions
_SERIES: Final = 4  # instead of the versions: the first of them, each other is one above the one before
_NO_CLIENT: Final = bytes(16)


class FrameError(ValueError):
    """Bytes that are no frame of ours; the connection ends."""


class Columns(Sequence[OperationTuple]):
    """Operations of one kind without conditions, which most batches are, in columns: no object is made for each.

    To whoever does not look, they are a sequence of operations like any other.
    """

    __slots__ = ("keys", "kind", "size", "values")

    def __init__(self, kind: int, keys: Sequence[bytes], values: Sequence[bytes], size: int | None = None) -> None:
        """As many values as keys; a Get's are empty. `size`: bytes of them all, if somebody has counted them."""
        self.kind, self.keys, self.values, self.size = kind, keys, values, size

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[OperationTuple]:
        return zip(repeat(self.kind), self.keys, self.values, repeat(None))

    @overload
    def __getitem__(self, at: int) -> OperationTuple: ...
    @overload
    def __getitem__(self, at: slice) -> "Columns": ...
    def __getitem__(self, at: int | slice) -> "OperationTuple | Columns":
        if isinstance(at, slice):
            return Columns(self.kind, self.keys[at], self.values[at])
        return self.kind, self.keys[at], self.values[at], None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(other) == len(self) and all(map(tuple.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]  # as a list's

    def __repr__(self) -> str:
        return f"Columns({list(self)!r})"


def in_columns(operations: Sequence[OperationTuple]) -> Sequence[OperationTuple]:
    """One operation at least, in columns if they are of one kind and without conditions."""
    kinds, keys, values, expected = zip(*operations, strict=True)
    plain = expected.count(None) == kinds.count(kinds[0]) == len(operations)
    return Columns(kinds[0], keys, values) if plain else operations


def picked(operations: Sequence[OperationTuple], places: Sequence[int]) -> Sequence[OperationTuple]:
    """The operations at these places; in columns if they were."""
    if type(operations) is Columns:
        keys, values = operations.keys, operations.values
        return Columns(operations.kind, [keys[i] for i in places], [values[i] for i in places])
    return [operations[i] for i in places]


def keys_of(operations: Sequence[OperationTuple]) -> Sequence[bytes]:
    """The key of each."""
    return operations.keys if type(operations) is Columns else [operation[1] for operation in operations]


class Done(Sequence[ResultTuple]):
    """Results without an error, which most answers are, in columns: no object is made for each.

    To whoever does not look, they are a sequence of results like any other.
    """

    __slots__ = ("values", "versions")

    def __init__(self, versions: Sequence[int], values: Sequence[bytes]) -> None:
        """As many values as versions; a write's are empty."""
        self.versions, self.values = versions, values

    @property
    def highest(self) -> int:
        """The highest version."""
        return self.versions[-1] if type(self.versions) is range else max(self.versions)

    def __len__(self) -> int:
        return len(self.versions)

    def __iter__(self) -> Iterator[ResultTuple]:
        return zip(self.versions, self.values, repeat(None))

    @overload
    def __getitem__(self, at: int) -> ResultTuple: ...
    @overload
    def __getitem__(self, at: slice) -> "Done": ...
    def __getitem__(self, at: int | slice) -> "ResultTuple | Done":
        if isinstance(at, slice):
            return Done(self.versions[at], self.values[at])
        return self.versions[at], self.values[at], None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as a list's

    def __repr__(self) -> str:
        return f"Done({list(self)!r})"


def all_done(results: Sequence[ResultTuple]) -> bool:
    """Whether none is an error."""
    return type(results) is Done or not any(map(_ERROR, results))


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
    if count == 1 and operations[0][3] is None:
        return _encode_one(request, *operations[0][:3])
    columns = ""
    wanted: Sequence[int] = ()
    if type(operations) is Columns:
        kinds, keys, values = bytes((operations.kind,)) * count, operations.keys, operations.values
    else:
        each, keys, values, expected = zip(*operations, strict=True)
        if expected.count(None) != count:
            each = tuple(k if e is None else k | _WITH_EXPECTED for k, e in zip(each, expected, strict=True))
            wanted = [e for e in expected if e is not None]
            columns = f"{len(wanted)}Q"
        kinds = bytes(each)
    lengths = (*map(len, keys), *map(len, values))
    numbers = struct.pack(f"<{count}H{count}I{columns}", *lengths, *wanted)
    head = _REQUEST.pack(*_head(request, count))
    length = 2 + len(head) + count + len(numbers) + sum(lengths)
    return b"".join((_HEAD.pack(length, REQUEST, VERSION), head, kinds, numbers, *keys, *values))


def _encode_one(request: Request, kind: int, key: bytes, value: bytes) -> bytes:
    """`encode_request` for one operation without a condition."""
    size = _ONE_REQUEST.size - _LENGTH.size + len(key) + len(value)
    head = _ONE_REQUEST.pack(size, REQUEST, VERSION, *_head(request, 1), kind, len(key), len(value))
    return b"".join((head, key, value))


def _head(request: Request, count: int) -> tuple[bytes | int, ...]:
    """The columns of `_REQUEST`."""
    return (
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


def one_get(body: bytes) -> tuple[int, bytes] | None:
    """(id, key) if a request's body is one linearizable Get of a caller that gave no pair and observed nothing; else None."""
    if len(body) < _ONE_GET.size:
        return None
    number, observed, lag, count, mode, named, kind, key_length, value_length = _ONE_GET.unpack_from(body)
    if count != 1 or kind != _GET or named or observed or lag or value_length or mode not in _LINEARIZABLE:
        return None
    key = body[_ONE_GET.size :]
    return (number, key) if len(key) == key_length else None


def _cut(data: bytes, at: int, lengths: Sequence[int]) -> list[bytes]:
    """The pieces of these lengths that begin at `at`."""
    return [data[start:end] for start, end in pairwise(accumulate(lengths, initial=at))]


def decode_request(body: bytes) -> Request:
    """A request's body. Raises FrameError."""
    try:
        client_id, number, sequence, observed, age, lag, timeout, count, mode, named = _REQUEST.unpack_from(body)
        at = _REQUEST.size + count
        kinds = body[_REQUEST.size : at]
        numbers = struct.unpack_from(f"<{count}H{count}I", body, at)
        at += 6 * count
        key_lengths, value_lengths = numbers[:count], numbers[count:]
        some = 0 if not kinds or max(kinds) < _WITH_EXPECTED else sum(k >= _WITH_EXPECTED for k in kinds)
        wanted = struct.unpack_from(f"<{some}Q", body, at)
        at += 8 * some
    except struct.error as e:
        raise FrameError(f"a batch of {len(body)} bytes that is cut off: {e}") from e
    values_at = at + sum(key_lengths)
    end = values_at + sum(value_lengths)
    if end != len(body):
        raise FrameError(f"a batch of {len(body)} bytes whose operations end at {end}")
    keys, values = _cut(body, at, key_lengths), _cut(body, values_at, value_lengths)
    operations: Sequence[OperationTuple]
    if some:
        expected = iter(wanted)
        operations = [
            (k & ~_WITH_EXPECTED, key, value, next(expected) if k >= _WITH_EXPECTED else None)
            for k, key, value in zip(kinds, keys, values, strict=True)
        ]
    elif kinds and kinds.count(kinds[0]) == count:
        operations = Columns(kinds[0], keys, values)
    else:
        operations = list(zip(kinds, keys, values, repeat(None)))
    return Request(operations, number, client_id if named else b"", sequence, age, mode, lag, observed, timeout)


def encode_answer(number: int, results: Sequence[ResultTuple]) -> bytes:
    """The frame of the answer to request `number`: one result per operation, in order."""
    versions, values, errors = zip(*results, strict=True)
    if errors.count(None) == len(results):
        return encode_records(number, versions, values)
    parts = [v if e is None else e.SerializeToString() for v, e in zip(values, errors, strict=True)]
    numbers = (*versions, *map(len, parts), *(e is not None for e in errors))
    return _answer(number, len(results), _VALUES | _ERRORS, "<{0}Q{0}I{0}B", numbers, parts)


def encode_records(number: int, versions: Sequence[int], values: Sequence[bytes]) -> bytes:
    """As `encode_answer`, when no operation failed."""
    if len(values) == 1 and values[0]:
        return encode_record(number, versions[0], values[0])
    if any(values):
        return _answer(number, len(versions), _VALUES, "<{0}Q{0}I", (*versions, *map(len, values)), values)
    return _answer(number, len(versions), 0, "<{0}Q", versions, ())


def encode_record(number: int, version: int, value: bytes) -> bytes:
    """As `encode_answer`, for one operation that found a value."""
    size = len(value)
    return _ONE_FRAME.pack(2 + _ONE_RECORD.size + size, ANSWER, VERSION, number, 1, _VALUES, version, size) + value


def encode_series(number: int, first_version: int, count: int) -> bytes:
    """As `encode_answer`, for writes whose versions follow each other, as those of one batch do."""
    return _answer(number, count, _SERIES, "<Q", (first_version,), ())


def _answer(  # noqa: PLR0917 - the parts of a frame, in their order
    number: int, count: int, flags: int, columns: str, numbers: Sequence[int], data: Sequence[bytes]
) -> bytes:
    head = _ANSWER.pack(number, count, flags)
    body = b"".join((head, struct.pack(columns.format(count), *numbers), *data))
    return _HEAD.pack(2 + len(body), ANSWER, VERSION) + body


def decode_answer(body: bytes) -> tuple[int, Sequence[ResultTuple]]:
    """(id of the request, its results) of an answer's body; `Done` if they are several and none failed. Raises FrameError."""
    if len(body) >= _ONE_RECORD.size:
        number, count, flags, version, length = _ONE_RECORD.unpack_from(body)
        if count == 1 and flags == _VALUES and length == len(body) - _ONE_RECORD.size:
            return number, [(version, body[_ONE_RECORD.size :], None)]
    try:
        number, count, flags = _ANSWER.unpack_from(body)
        at = _ANSWER.size
        versions: Sequence[int]
        if flags & _SERIES:
            (first,) = struct.unpack_from("<Q", body, at)
            versions = range(first, first + count)
            at += 8
        else:
            versions = struct.unpack_from(f"<{count}Q", body, at)
            at += 8 * count
        if flags & _VALUES:
            lengths = struct.unpack_from(f"<{count}I", body, at)
            at += 4 * count
        failed = b""
        if flags & _ERRORS:
            failed = body[at : at + count]
            at += count
        end = at + sum(lengths) if flags & _VALUES else at
        if end != len(body) or count > MAX_RESULTS:
            raise FrameError(f"an answer of {len(body)} bytes whose {count} results end at {end}")
        values = _cut(body, at, lengths) if flags & _VALUES else [b""] * count
        if not any(failed):
            return number, Done(versions, values) if count > 1 else list(zip(versions, values, repeat(None)))
        results: list[ResultTuple] = list(zip(versions, values, repeat(None)))
        for place in [i for i, bad in enumerate(failed) if bad]:
            version, value, _ = results[place]
            results[place] = (version, b"", kv_pb2.Error.FromString(value))
    except (struct.error, DecodeError) as e:
        raise FrameError(f"an answer of {len(body)} bytes that can't be read: {e}") from e
    return number, results


def check_hello(body: bytes) -> None:
    """Raise FrameError unless the other side speaks this protocol."""
    if body != _MAGIC:
        raise FrameError(f"{body[:8]!r} where {_MAGIC!r} begins every connection; is this the pipeline port?")


class Decoder:
    """Bytes in, (kind, body) out; holds at most one unfinished frame. Raises FrameError, then it is of no use."""

    def __init__(self) -> None:
        self._pieces = Pieces(_HEAD.size)

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that these bytes complete."""
        data = self._pieces.join(data)
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
        self._pieces.keep(data[at:], needed)
        return frames
