"""What a caller asks for and gets: operations, read modes, records; and what is checked before anything is sent."""

import enum
from collections.abc import Sequence
from typing import Final, NamedTuple

from kvclient.errors import InvalidArgumentError
from kvcommon.numbers import MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS, MAX_KEY_BYTES, MAX_VALUE_BYTES
from kvproto.pipeline import Columns, OperationTuple
from kvproto.v1 import kv_pb2

_BYTES: Final = {bytes}
OPERATION_OVERHEAD: Final = 32  # bytes of an encoded operation beside key and value, at most

GET: Final = kv_pb2.OPERATION_KIND_GET
PUT: Final = kv_pb2.OPERATION_KIND_PUT
CREATE: Final = kv_pb2.OPERATION_KIND_CREATE
UPDATE: Final = kv_pb2.OPERATION_KIND_UPDATE
DELETE: Final = kv_pb2.OPERATION_KIND_DELETE


class ReadMode(enum.IntEnum):
    """Which replica may answer a read. A number, as that is hashed without a call in Python at every read."""

    LINEARIZABLE = kv_pb2.READ_MODE_LINEARIZABLE
    BOUNDED = kv_pb2.READ_MODE_BOUNDED
    ANY = kv_pb2.READ_MODE_ANY


class ReadProfile(NamedTuple):
    """What all reads of one batch share."""

    mode: ReadMode = ReadMode.LINEARIZABLE
    max_lag_ms: int = 0


LINEARIZABLE: Final = ReadProfile()


make_tuple: Final = tuple.__new__
"""Makes a NamedTuple of a class and its fields, as `_make` does, in half the time: every call makes one."""


class Record(NamedTuple):
    """A key's value at a version. In answers to writes the value is empty."""

    key: bytes
    value: bytes
    version: int


class Operation(NamedTuple):
    """One operation of an explicit batch; made by `Operation.get(key)`, `.put(key, value)` and so on."""

    kind: int
    key: bytes
    value: bytes = b""
    expected_version: int | None = None

    @classmethod
    def get(cls, key: bytes) -> "Operation":
        """The newest record of a key."""
        return make_tuple(cls, (GET, key, b"", None))

    @classmethod
    def put(cls, key: bytes, value: bytes, *, expected_version: int | None = None) -> "Operation":
        """Write a key, whether it exists or not."""
        return make_tuple(cls, (PUT, key, value, expected_version))

    @classmethod
    def create(cls, key: bytes, value: bytes) -> "Operation":
        """Write a key that must not exist."""
        return cls(CREATE, key, value)

    @classmethod
    def update(cls, key: bytes, value: bytes, *, expected_version: int | None = None) -> "Operation":
        """Write a key that must exist."""
        return cls(UPDATE, key, value, expected_version)

    @classmethod
    def delete(cls, key: bytes, *, expected_version: int | None = None) -> "Operation":
        """Remove a key that must exist."""
        return cls(DELETE, key, b"", expected_version)


def check_key(key: object) -> None:
    """Raise InvalidArgumentError unless the key is 1 to 4096 bytes."""
    if not isinstance(key, bytes):
        raise InvalidArgumentError(f"a key is bytes; got {type(key).__name__}: encode it, e.g. 'a'.encode()")
    if not 0 < len(key) <= MAX_KEY_BYTES:
        raise InvalidArgumentError(f"a key has 1 to {MAX_KEY_BYTES} bytes; got {len(key)}")


def check_value(value: object) -> None:
    """Raise InvalidArgumentError unless the value is at most 1 MiB of bytes."""
    if not isinstance(value, bytes):
        raise InvalidArgumentError(f"a value is bytes; got {type(value).__name__}: encode it, e.g. 'a'.encode()")
    if len(value) > MAX_VALUE_BYTES:
        raise InvalidArgumentError(f"a value has at most {MAX_VALUE_BYTES} bytes; got {len(value)}")


def check_version(version: object) -> None:
    """Raise InvalidArgumentError unless an expected version is None or an unsigned 64-bit number."""
    if version is None:
        return
    if not isinstance(version, int) or not 0 <= version < 1 << 64:
        raise InvalidArgumentError(f"an expected version is a number from 0 to 2^64-1; got {version!r}")


def check_operations(operations: Sequence[Operation]) -> Sequence[OperationTuple]:
    """The operations, in columns where they are alike.

    Raises InvalidArgumentError when a batch or one of its operations can't be sent, naming which.
    """
    count = len(operations)
    if count > MAX_BATCH_OPERATIONS:
        raise InvalidArgumentError(f"a batch has at most {MAX_BATCH_OPERATIONS} operations; got {count}: split it")
    if not count:
        return operations
    kinds, keys, values, expected = zip(*operations, strict=True)
    plain = expected.count(None) == count
    if not plain or set(map(type, keys)) != _BYTES or set(map(type, values)) != _BYTES:
        _name_what_is_wrong(operations)
    key_bytes, value_bytes = sum(map(len, keys)), sum(map(len, values))
    if not all(keys) or _exceeds(MAX_KEY_BYTES, keys, key_bytes) or _exceeds(MAX_VALUE_BYTES, values, value_bytes):
        _name_what_is_wrong(operations)
    size = key_bytes + value_bytes
    if size > MAX_BATCH_BYTES:
        raise InvalidArgumentError(
            f"a batch has at most {MAX_BATCH_BYTES} bytes of keys and values; got {size}: split it"
        )
    return Columns(kinds[0], keys, values, size) if plain and kinds.count(kinds[0]) == count else operations


def _exceeds(most: int, column: Sequence[bytes], together: int) -> bool:
    """Whether any has more bytes than `most`: none has if all `together` have not."""
    return together > most and max(map(len, column)) > most


def _name_what_is_wrong(operations: Sequence[Operation]) -> None:
    """Raise InvalidArgumentError for the first that can't be sent, if there is one."""
    for position, operation in enumerate(operations):
        try:
            check_key(operation.key)
            check_value(operation.value)
            check_version(operation.expected_version)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"operation {position} of the batch: {error}") from None


def read_profile(mode: ReadMode, max_lag: float | None) -> ReadProfile:
    """The profile of a read; `max_lag` in seconds, with BOUNDED only. Raises InvalidArgumentError."""
    if mode is ReadMode.BOUNDED:
        if max_lag is None or max_lag < 0.001:
            raise InvalidArgumentError(f"a BOUNDED read needs max_lag, at least 0.001 s; got {max_lag}")
        return ReadProfile(mode, int(max_lag * 1000))
    if max_lag is not None:
        raise InvalidArgumentError(f"max_lag goes with BOUNDED reads only; got {max_lag} with {mode.name}")
    return ReadProfile(mode)
