"""Replication frames: length, CRC32C, then a message. Batches travel as the bytes that are in the log.

    u32 length of the payload | u32 CRC32C of the payload | payload: u8 kind, u8 version, body

Little-endian. The two frequent messages are fixed structs, the rare ones JSON.
"""

import json
import math
import struct
from collections.abc import Callable
from functools import reduce
from typing import Any, Final

from kvcommon.errors import KVClusterError
from kvcommon.numbers import Timing
from kvcoord.contract import ReplicaId, RunId
from kvnode.core.messages import (
    Ack,
    Append,
    Compacted,
    Go,
    Hello,
    Leave,
    Message,
    Passed,
    Refuse,
    RefuseReason,
    Welcome,
)
from kvnode.core.types import Batch, EpochStart, Position
from kvnode.shell.testimony import Answer, Question, answer_from_json, answer_to_json
from kvproto.pieces import Pieces
from kvstore.batch import MAX_INDEX, iter_batches
from kvstore.checksum import crc32c, extend_crc32c

VERSION: Final = 1
MAX_FRAME_BYTES: Final = 80 << 20  # above the largest batch of a log
_FRAME = struct.Struct("<II")
_KIND = struct.Struct("<BB")
_APPEND = struct.Struct("<BBQQQQQQB")
_ACK = struct.Struct("<BBQQQQ")
MAX_FIRST_FRAME_BYTES: Final = 1 << 20  # a Hello with a table of tens of thousands of epochs
FRAME_BYTES: Final = _FRAME.size

_HELLO, _WELCOME, _REFUSE, _APPEND_KIND, _ACK_KIND, _GO, _LEAVE, _QUESTION, _ANSWER, _COMPACTED, _PASSED = range(1, 12)

Spoken = Message | Question | Answer
"""What is said on replication connections: the core's messages, and what the shell asks beside them."""


class WireError(KVClusterError):
    """Bytes on a replication connection that are no frame of ours; the connection ends."""


def encode(message: Spoken) -> bytes:
    """A message as one frame."""
    return b"".join(encode_parts(message))


def encode_parts(message: Spoken) -> tuple[bytes, ...]:
    """As `encode`, in parts: batches are not copied, as a leader sends them to each follower."""
    if isinstance(message, Append):
        fields = (message.epoch, message.sequence, message.prev.epoch, message.prev.index, message.commit, message.echo)
        payload = _APPEND.pack(_APPEND_KIND, VERSION, *fields, message.leased)
        if message.batches:
            data = [batch.data for batch in message.batches]
            crc = reduce(extend_crc32c, data, crc32c(payload))
            return (_FRAME.pack(len(payload) + sum(map(len, data)), crc) + payload, *data)
    elif isinstance(message, Ack):
        payload = _ACK.pack(_ACK_KIND, VERSION, message.epoch, message.number, message.heard, message.durable)
    else:
        kind, body = _rare(message)
        payload = _KIND.pack(kind, VERSION) + json.dumps(body).encode()
    return (_FRAME.pack(len(payload), crc32c(payload)) + payload,)


def _rare(message: Spoken) -> tuple[int, dict[str, Any]]:
    match message:
        case Hello():
            return _HELLO, {
                "cluster_id": message.cluster_id,
                "partition": message.partition,
                "sender": _run(message.sender),
                "to": _run(message.to),
                "epoch": message.epoch,
                "end": [message.end.epoch, message.end.index],
                "commit": message.commit,
                "epochs": [[e.epoch, e.first] for e in message.epochs],
                "lease": message.lease,
            }
        case Welcome():
            parting = [message.parting.epoch, message.parting.index]
            return _WELCOME, {"epoch": message.epoch, "parting": parting, "commit": message.commit}
        case Refuse():
            return _REFUSE, {"epoch": message.epoch, "reason": int(message.reason)}
        case Go():
            return _GO, {"epoch": message.epoch, "run": _run(message.run)}
        case Leave():
            return _LEAVE, {"epoch": message.epoch, "broken": message.broken}
        case Compacted():
            return _COMPACTED, {"epoch": message.epoch, "horizon": message.horizon, "purged_to": message.purged_to}
        case Passed():
            return _PASSED, {"epoch": message.epoch, "index": message.index}
        case Question():
            return _QUESTION, {"cluster_id": message.cluster_id}
        case Answer():
            return _ANSWER, answer_to_json(message)
        case _:
            raise AssertionError(message)


def _run(run: RunId) -> list[str]:
    return [run.replica.pod, run.replica.incarnation, run.run]


def _to_run(row: list[str]) -> RunId:
    pod, incarnation, run = (str(x) for x in row)
    return RunId(ReplicaId(pod, incarnation), run)


def _number(value: Any) -> int:
    """A count, index or epoch: whole, not negative, and of 63 bits at most, as the log's format has them."""
    if type(value) is not int or not 0 <= value <= MAX_INDEX:
        raise ValueError(f"{value!r} where a number from 0 to {MAX_INDEX} must be")
    return value


def _seconds(value: Any) -> float:
    """A time that is one: JSON as Python reads it has NaN and Infinity, which no comparison refuses."""
    seconds = float(value)
    if not math.isfinite(seconds):
        raise ValueError(f"{value!r} where seconds must be")
    return seconds


def _to_position(row: list[int]) -> Position:
    epoch, index = (_number(x) for x in row)
    return Position(epoch, index)


def decode(payload: bytes) -> Spoken:
    """The message in a frame's payload, whose CRC was checked. Raises WireError."""
    try:
        kind, version = _KIND.unpack_from(payload)
        if version != VERSION:
            raise WireError(f"a replication message of version {version}; this release speaks version {VERSION}")
        if kind == _APPEND_KIND:
            return _append(payload)
        if kind == _ACK_KIND:
            _, _, epoch, number, heard, durable = _ACK.unpack(payload)
            return Ack(epoch, number, heard, durable)
        return _DECODERS[kind](json.loads(payload[_KIND.size :]))
    except WireError:
        raise
    except (
        struct.error,
        KVClusterError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as e:
        raise WireError(f"not a replication message: {type(e).__name__}: {e}") from e


def _append(payload: bytes) -> Append:
    _, _, epoch, sequence, prev_epoch, prev_index, commit, echo, leased = _APPEND.unpack_from(payload)
    batches: tuple[Batch, ...] = ()
    if len(payload) > _APPEND.size:  # the frame's CRC covered the batches; the log checks each batch's own
        found = iter_batches(payload, _APPEND.size, verify=False)
        batches = tuple([Batch(h.epoch, h.first, h.last, data) for h, data in found])
    return Append(epoch, sequence, Position(prev_epoch, prev_index), commit, batches, echo, bool(leased))


_DECODERS: dict[int, Callable[[dict[str, Any]], Spoken]] = {
    _HELLO: lambda b: Hello(
        str(b["cluster_id"]),
        _number(b["partition"]),
        _to_run(b["sender"]),
        _to_run(b["to"]),
        _number(b["epoch"]),
        _to_position(b["end"]),
        _number(b["commit"]),
        tuple(EpochStart(_number(e), _number(f)) for e, f in b["epochs"]),
        _seconds(b.get("lease", Timing().lease)),
    ),
    _WELCOME: lambda b: Welcome(_number(b["epoch"]), _to_position(b["parting"]), _number(b["commit"])),
    _REFUSE: lambda b: Refuse(_number(b["epoch"]), RefuseReason(int(b["reason"]))),
    _GO: lambda b: Go(_number(b["epoch"]), _to_run(b["run"])),
    _LEAVE: lambda b: Leave(_number(b["epoch"]), bool(b["broken"])),
    _COMPACTED: lambda b: Compacted(_number(b["epoch"]), _number(b["horizon"]), _number(b["purged_to"])),
    _PASSED: lambda b: Passed(_number(b["epoch"]), _number(b["index"])),
    _QUESTION: lambda b: Question(str(b["cluster_id"])),
    _ANSWER: answer_from_json,
}


class Decoder:
    """Bytes in, messages out; holds at most one unfinished frame. Raises WireError, after which it is of no use."""

    def __init__(self, limit: int = MAX_FRAME_BYTES) -> None:
        """`limit` for the first frame, bytes: who has not yet said who it is can't make a node hold much."""
        self._pieces = Pieces(FRAME_BYTES)
        self._limit = limit

    def feed(self, data: bytes) -> list[Spoken]:
        """The messages that these bytes complete."""
        data = self._pieces.join(data)
        messages: list[Spoken] = []
        at, needed = 0, FRAME_BYTES
        while len(data) - at >= FRAME_BYTES:
            length, crc = _FRAME.unpack_from(data, at)
            if length > self._limit:
                raise WireError(f"a frame of {length} bytes; at most {self._limit} are possible here")
            end = at + FRAME_BYTES + length
            if len(data) < end:
                needed = FRAME_BYTES + length
                break
            payload = data[at + FRAME_BYTES : end]
            if crc32c(payload) != crc:
                raise WireError(f"wrong checksum of a frame of {length} bytes")
            messages.append(decode(payload))
            self._limit = MAX_FRAME_BYTES
            at = end
        self._pieces.keep(data[at:], needed)
        return messages
