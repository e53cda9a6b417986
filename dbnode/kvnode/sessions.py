"""The result of a client's batch as bytes in the log, for repeats (rule 10). Two small own formats.

u8 1 | u8 code and u64 version for each operation; a Get has code 255: a repeat reads again
u8 2 | u32 count, u64 version: of writes that all were done, the first's; each other is one above the one before
"""

import struct
from collections.abc import Sequence
from typing import Final

from kvcommon.errors import KVClusterError
from kvcommon.numbers import MAX_BATCH_OPERATIONS
from kvnode.operations import Kind, Operation, Outcome, Written

EACH: Final = 1
SERIES: Final = 2
READ_AGAIN: Final = 255
_ROW = struct.Struct("<BQ")
_SERIES = struct.Struct("<BIQ")
_GET: Final = int(Kind.GET)  # a plain number is compared faster


def encode_outcomes(operations: Sequence[Operation], outcomes: Sequence[Outcome]) -> bytes:
    """What a repeat of these operations is answered with."""
    if type(outcomes) is Written:
        return _SERIES.pack(SERIES, len(outcomes), outcomes.versions[0])
    pack = _ROW.pack
    rows = [
        pack(READ_AGAIN, 0) if op[0] == _GET else pack(out[0], out[1])
        for op, out in zip(operations, outcomes, strict=True)
    ]
    return b"\x01" + b"".join(rows)


def decode_outcomes(data: bytes) -> Sequence[Outcome | None]:
    """The outcomes of the first time; None where a Get stood."""
    if data[:1] == b"\x02" and len(data) == _SERIES.size:
        _, count, first = _SERIES.unpack(data)
        if count <= MAX_BATCH_OPERATIONS:
            return Written(range(first, first + count))
    if not data or data[0] != EACH or (len(data) - 1) % _ROW.size:
        msg = f"a session record of {len(data)} bytes in an unknown format {data[:1].hex() or 'none'}"
        raise KVClusterError(msg)
    return [None if code == READ_AGAIN else Outcome(code, version) for code, version in _ROW.iter_unpack(data[1:])]
