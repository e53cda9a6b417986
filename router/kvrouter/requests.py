"""What a request must be to be forwarded, and how long it may take: pure.

What a node checks by itself (kinds, expected versions, values) is left to the node, which answers it per operation.
"""

from typing import Protocol

from kvclient.operations import LINEARIZABLE, ReadMode, ReadProfile
from kvcommon.numbers import CLIENT_DEADLINE, MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS, MAX_KEY_BYTES, MAX_VALUE_BYTES
from kvcommon.versions import VersionClock
from kvproto.v1 import kv_pb2

CLIENT_ID_BYTES = 16
_MARGIN = 0.05  # seconds, at most, by which the router answers before its caller's deadline
_MARGIN_PART = 0.1
_MODES = frozenset(kv_pb2.ReadMode.values())
_FRESH = (kv_pb2.READ_MODE_UNSPECIFIED, kv_pb2.READ_MODE_LINEARIZABLE)


class _Read(Protocol):
    """The fields that say how fresh a read must be."""

    @property
    def read_mode(self) -> int: ...
    @property
    def max_lag_ms(self) -> int: ...


def seconds_to_answer(remaining: float | None) -> float:
    """How long the router may take: so much less than its caller's deadline that its answer still arrives."""
    if remaining is None or remaining <= 0:
        return CLIENT_DEADLINE
    return remaining - min(_MARGIN, remaining * _MARGIN_PART)


def profile_of(request: _Read) -> ReadProfile:
    """The read profile of a request."""
    if request.read_mode in _FRESH:
        return LINEARIZABLE
    mode = ReadMode(request.read_mode)
    return ReadProfile(mode, request.max_lag_ms if mode is ReadMode.BOUNDED else 0)


def wrong_read(request: _Read) -> str:
    """What is wrong with a request's freshness; empty: nothing."""
    if request.read_mode not in _MODES:
        return f"read_mode {request.read_mode} does not exist; take one of {', '.join(kv_pb2.ReadMode.keys())}"
    if request.read_mode == kv_pb2.READ_MODE_BOUNDED and not request.max_lag_ms:
        return "read_mode BOUNDED without max_lag_ms; give at least 1"
    return ""


def wrong_key(key: bytes) -> str:
    """What is wrong with a key; empty: nothing."""
    return "" if 0 < len(key) <= MAX_KEY_BYTES else f"a key of {len(key)} bytes; 1 to {MAX_KEY_BYTES} are possible"


def wrong_value(value: bytes) -> str:
    """What is wrong with a value; empty: nothing."""
    return "" if len(value) <= MAX_VALUE_BYTES else f"a value of {len(value)} bytes; at most {MAX_VALUE_BYTES} go"


def wrong_observed(version: int, wall_ms: int) -> str:
    """What is wrong with an observed version (rule 18); empty: nothing."""
    if version and VersionClock.too_far_ahead(version, wall_ms):
        return f"observed_version {version} is more than 1 s ahead of this router's clock; send what the cluster gave"
    return ""


def wrong_batch(request: kv_pb2.BatchRequest) -> str:
    """What is wrong with a batch as a whole; empty: nothing."""
    count = len(request.operations)
    if not 1 <= count <= MAX_BATCH_OPERATIONS:
        return f"a batch of {count} operations; 1 to {MAX_BATCH_OPERATIONS} are possible"
    size = sum(len(operation.key) + len(operation.value) for operation in request.operations)
    if size > MAX_BATCH_BYTES:
        return f"a batch of {size} bytes of keys and values; at most {MAX_BATCH_BYTES} are possible"
    if request.client_id and (len(request.client_id) != CLIENT_ID_BYTES or not request.sequence):
        given = f"client_id of {len(request.client_id)} bytes with sequence {request.sequence}"
        return f"{given}; {CLIENT_ID_BYTES} bytes and a sequence from 1 go together"
    if request.sequence and not request.client_id:
        return f"sequence {request.sequence} without a client_id; give both or neither"
    return wrong_read(request)
