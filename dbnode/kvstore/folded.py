"""What a batch changes once it is committed, found out while it is made or checked, so that nobody walks it again."""

import struct
from dataclasses import dataclass, field

from kvstore.batch import BYTES, HEADER_BYTES, RECORD_BYTES, BatchHeader, RecordType, unpack_record
from kvstore.errors import CorruptionError
from kvstore.index.base import LENGTH_BITS

_PUT, _DELETE, _EPOCH, _SESSION = map(int, RecordType)


@dataclass(slots=True)
class Folded:
    """`keys` that it writes, in order, and the `places` of those records, packed as an index's are, from the batch's beginning.

    0: deleted. `sessions`: key, value, version and offset in the batch of its SESSION
    records. `others`: the offsets of those that are neither PUT nor SESSION. `highest`: the highest version of all.
    """

    keys: list[bytes] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    sessions: list[tuple[bytes, bytes, int, int]] = field(default_factory=list)
    others: list[int] = field(default_factory=list)
    highest: int = 0


def fold_records(data: bytes, header: BatchHeader, offset: int = 0) -> Folded:
    """What the batch at `offset` changes, after checking that its records fill it exactly, in order.

    As `kvstore.batch.check_records`; verifies no record's CRC. Raises CorruptionError.
    """
    at, end, previous, highest = offset + HEADER_BYTES, offset + header.length, header.first - 1, 0
    last = header.last
    folded = Folded()
    keys, places = folded.keys, folded.places
    try:
        for _ in range(header.count):
            _, kind, key_length, value_length, index, version = unpack_record(data, at)
            if not previous < index <= last:
                raise CorruptionError(BYTES, at, f"a record of index {index} behind {previous}")
            key_at = at + RECORD_BYTES
            value_at = key_at + key_length
            behind = value_at + value_length
            if kind == _PUT:
                keys.append(data[key_at:value_at])
                places.append((at - offset << LENGTH_BITS) + behind - at)
            elif kind == _SESSION:
                folded.sessions.append((data[key_at:value_at], data[value_at:behind], version, at - offset))
            elif kind in (_DELETE, _EPOCH):
                folded.others.append(at - offset)
                if kind == _DELETE:
                    keys.append(data[key_at:value_at])
                    places.append(0)
            else:
                raise CorruptionError(BYTES, at, f"a record of type {kind}, index {index}")
            at, previous = behind, index
            if version > highest:  # noqa: PLR1730  # max() costs as much as the rest of the loop
                highest = version
    except struct.error as e:
        raise CorruptionError(BYTES, at, f"{len(data) - at} bytes where a record's header has {RECORD_BYTES}") from e
    if at != end:
        raise CorruptionError(BYTES, at, f"the records end at {at}, the batch at {end}")
    folded.highest = highest
    return folded
