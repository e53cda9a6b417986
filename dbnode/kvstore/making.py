"""A batch that is being made: records are encoded as they come, and what they change is noted on the way. Pure."""

import struct
from collections.abc import Sequence
from itertools import accumulate, chain, repeat

from kvstore.batch import (
    CHECKED,
    CRC,
    CRC_BYTES,
    HEADER_BYTES,
    MAX_RECORD_BYTES,
    RecordType,
    encode_records,
    seal_batch,
)
from kvstore.checksum import crc32c
from kvstore.errors import RecordTooLargeError
from kvstore.folded import Folded
from kvstore.index.base import LENGTH_BITS

_PUT, _DELETE, _SESSION = int(RecordType.PUT), int(RecordType.DELETE), int(RecordType.SESSION)


class BatchMaker:
    """Makes one batch, whose first record has the index `first`; `commit` is the leader's commit index."""

    def __init__(self, epoch: int, first: int, commit: int) -> None:
        self.epoch, self.first, self.commit = epoch, first, commit
        self.count = 0
        self.folded = Folded()
        self._parts: list[bytes] = []
        self._size = HEADER_BYTES

    def put_all(self, keys: Sequence[bytes], values: Sequence[bytes], first_version: int) -> None:
        """Add writes whose versions follow each other. Raises RecordTooLargeError."""
        number, index = len(keys), self.first + self.count
        columns = (
            map(len, keys),
            map(len, values),
            range(index, index + number),
            range(first_version, first_version + number),
        )
        try:
            rests = list(map(b"".join, zip(map(CHECKED.pack, repeat(_PUT), *columns), keys, values, strict=True)))
        except struct.error as e:
            msg = f"one of {number} records does not fit the format: {e}"
            raise RecordTooLargeError(msg) from e
        sizes = [len(rest) + CRC_BYTES for rest in rests]
        if max(sizes) > MAX_RECORD_BYTES:
            msg = f"a record of {max(sizes)} bytes; at most {MAX_RECORD_BYTES} fit. Store less in one value"
            raise RecordTooLargeError(msg)
        self._parts.extend(chain.from_iterable(zip(map(CRC.pack, map(crc32c, rests)), rests, strict=True)))
        *offsets, self._size = accumulate(sizes, initial=self._size)
        self.folded.keys += keys
        self.folded.places += [(at << LENGTH_BITS) + size for at, size in zip(offsets, sizes, strict=True)]
        self._took(number, first_version + number - 1)

    def put(self, key: bytes, value: bytes, version: int) -> None:
        """Add a write. Raises RecordTooLargeError."""
        at = self._size << LENGTH_BITS
        self.folded.places.append(at + self._add(_PUT, key, value, version))
        self.folded.keys.append(key)

    def delete(self, key: bytes, version: int) -> None:
        """Add a deletion."""
        at = self._size
        self._add(_DELETE, key, b"", version)
        self.folded.others.append(at)
        self.folded.places.append(0)
        self.folded.keys.append(key)

    def session(self, key: bytes, result: bytes, version: int) -> None:
        """Add the result of a client's batch."""
        at = self._size
        self._add(_SESSION, key, result, version)
        self.folded.sessions.append((key, result, version, at))

    def _add(self, kind: int, key: bytes, value: bytes, version: int) -> int:
        data, _ = encode_records(self.first + self.count, ((kind, key, value, version, 0),))
        size = len(data)
        self._parts.append(data)
        self._size += size
        self._took(1, version)
        return size

    def _took(self, number: int, version: int) -> None:
        self.count += number
        self.folded.highest = version  # they grow

    @property
    def last(self) -> int:
        """The index of the last record."""
        return self.first + self.count - 1

    def seal(self) -> bytes:
        """The batch, of one record at least."""
        return seal_batch(
            epoch=self.epoch,
            first=self.first,
            last=self.last,
            commit=self.commit,
            count=self.count,
            body=b"".join(self._parts),
        )
