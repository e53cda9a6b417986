"""The format of the log: batches of records. Pure; docs/storage-format.md shows it byte by byte.

A batch is 46 bytes of header, then `count` records one after the other. All numbers are little-endian. The batch's CRC
covers everything behind it, a record's CRC the rest of the record, so that one record can be checked by itself.
A batch covers the indexes `first..last`; where compaction took records, `count` is smaller than that.
"""

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from kvstore.checksum import crc32c, extend_crc32c
from kvstore.errors import CorruptionError, FormatVersionError, RecordTooLargeError

FORMAT_VERSION: Final = 1
MAX_BATCH_BYTES: Final = 64 << 20  # a longer batch is damage, not data
MAX_RECORD_BYTES: Final = (2 << 20) - 1  # what an index's 21 bits of length can say
MAX_INDEX: Final = (1 << 63) - 1

_HEADER = struct.Struct("<IIBBQQQIQ")  # crc, length, version, flags, epoch, first, last, count, commit
_SEALED = struct.Struct("<IBBQQQIQ")  # the same without the crc
_RECORD = struct.Struct("<IBHIQQ")  # crc, type, key length, value length, index, version
CHECKED: Final = struct.Struct("<BHIQQ")  # the same without the crc
CRC: Final = struct.Struct("<I")
CRC_BYTES: Final = CRC.size
HEADER_BYTES: Final = _HEADER.size
RECORD_BYTES: Final = _RECORD.size
_FRAME_BYTES: Final = 8  # crc and length themselves, which length doesn't count
_MIN_LENGTH: Final = HEADER_BYTES - _FRAME_BYTES
BYTES: Final = "<bytes>"

unpack_record = _RECORD.unpack_from
"""(crc, type, key length, value length, index, version) of the record at an offset."""


class RecordType(IntEnum):
    """What a record says."""

    PUT = 1
    DELETE = 2
    EPOCH = 3  # an epoch's first record: no key
    SESSION = 4  # the result of a client's batch: see kvstore.sessions


class Record(NamedTuple):
    """One record. `type` is a RecordType's number; `version` is that of kvcommon.versions."""

    type: int
    key: bytes
    value: bytes
    version: int
    index: int = 0  # type: ignore[assignment]  # hides tuple.index, which nobody needs here


_make_record = tuple.__new__  # as Record._make does, half as long: every get makes one

RecordTuple = tuple[int, bytes, bytes, int, int]
"""What a Record is; plain tuples do as well, and are faster to make."""


class BatchHeader(NamedTuple):
    """A batch's header. `length` is that of the whole batch in bytes, `commit` the leader's commit index then."""

    epoch: int
    first: int
    last: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    commit: int
    length: int


def encode_records(first_index: int, records: Iterable[RecordTuple]) -> tuple[bytes, int]:
    """The records' bytes and their count. They get the indexes `first_index`, +1, ...; the tuples' own are not read.

    Raises RecordTooLargeError for a key above 65,535 bytes or a record above MAX_RECORD_BYTES.
    """
    parts: list[bytes] = []
    add, checked, sealed, index = parts.append, CHECKED.pack, CRC.pack, first_index
    try:
        for kind, key, value, version, _ in records:
            rest = checked(kind, len(key), len(value), index, version) + key + value
            add(sealed(crc32c(rest)))
            add(rest)
            if len(rest) > MAX_RECORD_BYTES - 4:
                msg = f"a record of {len(rest) + 4} bytes; at most {MAX_RECORD_BYTES} fit. Store less in one value"
                raise RecordTooLargeError(msg)
            index += 1
    except struct.error as e:
        msg = f"record {index - first_index} of the batch does not fit the format: {e}"
        raise RecordTooLargeError(msg) from e
    return b"".join(parts), index - first_index


def encode_batch(epoch: int, first_index: int, commit: int, records: Iterable[RecordTuple]) -> bytes:
    """A batch of at least one record, indexes given from `first_index` on; `commit` is the leader's, now.

    Raises RecordTooLargeError, or ValueError for no records or a commit index that isn't below the batch.
    """
    body, count = encode_records(first_index, records)
    if not count:
        msg = "a batch needs a record"
        raise ValueError(msg)
    last = first_index + count - 1
    return seal_batch(epoch=epoch, first=first_index, last=last, commit=commit, count=count, body=body)


def seal_batch(*, epoch: int, first: int, last: int, commit: int, count: int, body: bytes) -> bytes:
    """A batch over encoded records; with gaps in them if compaction left some."""
    if commit >= first:
        msg = f"commit index {commit} is not below the batch's first index {first}"
        raise ValueError(msg)
    length = _MIN_LENGTH + len(body)
    if length + _FRAME_BYTES > MAX_BATCH_BYTES:
        msg = f"a batch of {length + _FRAME_BYTES} bytes; at most {MAX_BATCH_BYTES} fit. Make smaller batches"
        raise RecordTooLargeError(msg)
    head = _SEALED.pack(length, FORMAT_VERSION, 0, epoch, first, last, count, commit)
    return b"".join((CRC.pack(extend_crc32c(crc32c(head), body)), head, body))


def read_header(data: bytes, offset: int = 0, *, file: str = BYTES, base: int = 0) -> BatchHeader:
    """The header at `offset`, its numbers checked against each other; its CRC is not (see `check_batch`).

    `file` and `base` (of `data` in it) say in an error where this was. Raises CorruptionError, FormatVersionError.
    """
    at = base + offset
    if len(data) - offset < HEADER_BYTES:
        raise CorruptionError(file, at, f"{len(data) - offset} bytes where a batch header has {HEADER_BYTES}")
    _, length, version, flags, epoch, first, last, count, commit = _HEADER.unpack_from(data, offset)
    size = length + _FRAME_BYTES
    if not HEADER_BYTES <= size <= MAX_BATCH_BYTES:
        raise CorruptionError(file, at, f"a batch of {size} bytes; {HEADER_BYTES} to {MAX_BATCH_BYTES} are possible")
    if version != FORMAT_VERSION or flags:
        _refuse_version(data[offset : offset + size], size, file, at)
    if not 0 < first <= last <= MAX_INDEX or count > last - first + 1 or commit >= first:
        what = f"an impossible batch: first {first}, last {last}, {count} records, commit {commit}"
        raise CorruptionError(file, at, what)
    if count * RECORD_BYTES > size - HEADER_BYTES:
        raise CorruptionError(file, at, f"{count} records do not fit in {size - HEADER_BYTES} bytes")
    return BatchHeader(epoch, first, last, count, commit, size)


def _refuse_version(batch: bytes, size: int, file: str, at: int) -> None:
    """A whole batch of another version is a newer release's; one whose CRC is wrong is damage."""
    version, flags = batch[8], batch[9]
    if len(batch) == size and version > FORMAT_VERSION and _crc_holds(batch, 0, size):
        raise FormatVersionError(file, version, FORMAT_VERSION)
    raise CorruptionError(file, at, f"not a batch of version {FORMAT_VERSION}: version {version}, flags {flags}")


def _crc_holds(data: bytes, offset: int, size: int) -> bool:
    (crc,) = CRC.unpack_from(data, offset)
    return crc32c(data[offset + 4 : offset + size]) == int(crc)


def check_batch(data: bytes, offset: int = 0, *, file: str = BYTES, base: int = 0) -> BatchHeader:
    """The header of the whole batch at `offset`, its CRC verified. Raises CorruptionError, FormatVersionError."""
    header = read_header(data, offset, file=file, base=base)
    check_crc(data, header, offset, file=file, base=base)
    return header


def check_crc(data: bytes, header: BatchHeader, offset: int = 0, *, file: str = BYTES, base: int = 0) -> None:
    """Verify the CRC of the whole batch at `offset`, whose header was read. Raises CorruptionError."""
    if len(data) - offset < header.length:
        what = f"a batch of {header.length} bytes of which {len(data) - offset} are there"
        raise CorruptionError(file, base + offset, what)
    if not _crc_holds(data, offset, header.length):
        what = f"wrong checksum over the batch of indexes {header.first}..{header.last}"
        raise CorruptionError(file, base + offset, what)


def check_records(data: bytes, header: BatchHeader, offset: int = 0, *, file: str = BYTES, base: int = 0) -> int:
    """The highest version among the batch's records, after checking that they fill it exactly, in order.

    Doesn't verify the records' CRCs: the batch's covers them. Raises CorruptionError.
    """
    at, end, previous, highest = offset + HEADER_BYTES, offset + header.length, header.first - 1, 0
    for _ in range(header.count):
        if end - at < RECORD_BYTES:
            raise CorruptionError(file, base + at, f"{end - at} bytes where a record's header has {RECORD_BYTES}")
        _, kind, key_length, value_length, index, version = unpack_record(data, at)
        if not 1 <= kind <= 4 or not previous < index <= header.last:
            raise CorruptionError(file, base + at, f"a record of type {kind} and index {index} behind {previous}")
        at += RECORD_BYTES + key_length + value_length
        previous = index
        if version > highest:  # noqa: PLR1730  # max() costs as much as the rest of the loop
            highest = version
    if at != end:
        raise CorruptionError(file, base + at, f"the records end at {base + at}, the batch at {base + end}")
    return highest


def iter_batches(data: bytes, offset: int = 0, *, verify: bool = True) -> Iterator[tuple[BatchHeader, bytes]]:
    """Each batch's header and bytes, of whole batches one after the other, from an offset on. Raises CorruptionError."""
    while offset < len(data):
        header = check_batch(data, offset) if verify else read_header(data, offset)
        end = offset + header.length
        if end > len(data):
            raise CorruptionError(
                BYTES, offset, f"a batch of {header.length} bytes of which {len(data) - offset} are there"
            )
        yield header, data[offset:end]
        offset = end


def iter_records(batch: bytes) -> Iterator[Record]:
    """A whole batch's records in index order. Verifies no CRC; bounds are checked. Raises CorruptionError."""
    header = read_header(batch)
    at, end, make = HEADER_BYTES, header.length, Record._make
    for _ in range(header.count):
        if end - at < RECORD_BYTES:
            raise CorruptionError(BYTES, at, f"{end - at} bytes where a record's header has {RECORD_BYTES}")
        _, kind, key_length, value_length, index, version = unpack_record(batch, at)
        key_at = at + RECORD_BYTES
        value_at = key_at + key_length
        at = value_at + value_length
        if at > end:
            raise CorruptionError(BYTES, key_at, f"a record that ends at {at}, behind the batch's end {end}")
        yield make((kind, batch[key_at:value_at], batch[value_at:at], version, index))


def batch_behind(batch: bytes, index: int) -> bytes:
    """The part of a whole batch behind an index inside its range, as a batch of its own; it may hold no record."""
    header = read_header(batch)
    at, count = HEADER_BYTES, header.count
    while count:
        _, _, key_length, value_length, found, _ = unpack_record(batch, at)
        if found > index:
            break
        at += RECORD_BYTES + key_length + value_length
        count -= 1
    body = batch[at : header.length]
    return seal_batch(
        epoch=header.epoch, first=index + 1, last=header.last, commit=header.commit, count=count, body=body
    )


def decode_record(data: bytes, *, file: str = BYTES, base: int = 0) -> Record:
    """The record that `data` is, exactly; its CRC is verified. Raises CorruptionError."""
    if len(data) < RECORD_BYTES:
        raise CorruptionError(file, base, f"{len(data)} bytes where a record's header has {RECORD_BYTES}")
    crc, kind, key_length, value_length, index, version = unpack_record(data, 0)
    value_at = RECORD_BYTES + key_length
    if value_at + value_length != len(data) or crc32c(data[4:]) != crc:
        raise CorruptionError(file, base, f"wrong checksum or length of the record of {len(data)} bytes")
    return _make_record(Record, (kind, data[RECORD_BYTES:value_at], data[value_at:], version, index))
