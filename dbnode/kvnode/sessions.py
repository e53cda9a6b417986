"""The result of a client's batch as bytes in the log, for repeats (rule 10). Version 1 of a small own format.

u8 format | u8 code and u64 version for each operation; a Get has code 255: a repeat reads again
"""

import struct
from collections.abc import Sequence
from typing import Final

from kvcommon.errors import KVClusterError
from kvnode.operations import Kind, Operation, Outcome

FORMAT: Final = 1
READ_AGAIN: Final = 255
_ROW = struct.Struct("<BQ")
_GET: Final = int(Kind.GET)  # a plain number is compared faster


def encode_outcomes(operations: Sequence[Operation], outcomes: Sequence[Outcome]) -> bytes:
    """What a repeat of these operations is answered with."""
    pack = _ROW.pack
    rows = [
        pack(READ_AGAIN, 0) if op[0] == _GET else pack(out[0], out[1])
        for op, out in zip(operations, outcomes, strict=True)
    ]
    return b"\x01" + b"".join(rows)


def decode_outcomes(data: bytes) -> list[Outcome | None]:
    """The outcomes of the first time; None where a Get stood."""
    if not data or data[0] != FORMAT or (len(data) - 1) % _ROW.size:
        msg = f"a session record of {len(data)} bytes in an unknown format {data[:1].hex() or 'none'}"
        raise KVClusterError(msg)
    return [None if code == READ_AGAIN else Outcome(code, version) for code, version in _ROW.iter_unpack(data[1:])]
