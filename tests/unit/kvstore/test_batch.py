"""The batch format: what goes in comes out, and nothing that isn't a batch is taken for one."""

import struct

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from kvstore.batch import (
    HEADER_BYTES,
    MAX_BATCH_BYTES,
    MAX_RECORD_BYTES,
    RECORD_BYTES,
    Record,
    check_batch,
    check_records,
    decode_record,
    encode_batch,
    encode_records,
    iter_batches,
    iter_records,
    read_header,
    seal_batch,
)
from kvstore.checksum import crc32c
from kvstore.errors import CorruptionError, FormatVersionError, RecordTooLargeError
from tests.unit.kvstore.support import PUT, batch, delete, put

records = st.lists(
    st.builds(
        Record,
        st.integers(1, 4),
        st.binary(max_size=50),
        st.binary(max_size=200),
        st.integers(0, 2**64 - 1),
        st.just(0),
    ),
    min_size=1,
    max_size=8,
)


@settings(deadline=None)
@given(records, st.integers(0, 2**64 - 1), st.integers(1, 2**48))
def test_what_is_encoded_is_decoded(content: list[Record], epoch: int, first: int) -> None:
    data = encode_batch(epoch, first, first - 1, content)
    header = check_batch(data)
    assert header == (epoch, first, first + len(content) - 1, len(content), first - 1, len(data))
    assert list(iter_records(data)) == [r._replace(index=first + i) for i, r in enumerate(content)]
    assert check_records(data, header) == max(r.version for r in content)


def test_plain_tuples_do_as_well_as_records() -> None:
    assert encode_batch(1, 1, 0, [(PUT, b"k", b"v", 1, 99)]) == batch(1, put(b"k", b"v"))


def test_batches_one_behind_the_other_are_told_apart() -> None:
    first, second = batch(1, put(b"a", b"1"), put(b"b", b"2")), batch(3, delete(b"a"))
    assert [(h.first, h.last, b) for h, b in iter_batches(first + second)] == [(1, 2, first), (3, 3, second)]


def test_a_record_is_verified_by_itself() -> None:
    data = batch(1, put(b"a", b"1"), put(b"b", b"2", 7))
    assert decode_record(data[-RECORD_BYTES - 2 :]) == Record(PUT, b"b", b"2", 7, 2)


def test_a_batch_whose_records_have_gaps_is_read() -> None:
    body = encode_records(5, [put(b"a", b"")])[0] + encode_records(9, [put(b"b", b"")])[0]
    data = seal_batch(epoch=1, first=3, last=12, commit=2, count=2, body=body)
    assert check_records(data, check_batch(data)) == 1
    assert [r.index for r in iter_records(data)] == [5, 9]


@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_is_noticed(bit: int) -> None:
    data = batch(7, put(b"key", b"value"), delete(b"old"), commit=3)
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << bit
        with pytest.raises(CorruptionError):
            check_batch(bytes(damaged))


@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_of_one_record_is_noticed(bit: int) -> None:
    data = batch(7, put(b"key", b"value"))[HEADER_BYTES:]
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << bit
        with pytest.raises(CorruptionError):
            decode_record(bytes(damaged))


def test_every_shorter_piece_is_refused() -> None:
    data = batch(7, put(b"key", b"value"))
    for length in range(len(data)):
        with pytest.raises(CorruptionError):
            check_batch(data[:length])
        with pytest.raises(CorruptionError):
            list(iter_batches(data[:length] or b"\0", verify=False))


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_refused_by_name(noise: bytes) -> None:
    for read in (check_batch, decode_record):
        with pytest.raises((CorruptionError, FormatVersionError)):
            read(noise)


def sealed(**changes: int) -> bytes:
    """An empty batch with a right checksum and a wrong header."""
    fields = {
        "length": 38,
        "version": 1,
        "flags": 0,
        "epoch": 1,
        "first": 5,
        "last": 5,
        "count": 0,
        "commit": 0,
    } | changes
    rest = struct.pack("<IBBQQQIQ", *fields.values())
    return struct.pack("<I", crc32c(rest)) + rest


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"length": 2**32 - 1}, "4294967303 bytes"),
        ({"length": MAX_BATCH_BYTES}, "are possible"),
        ({"length": 3}, "a batch of 11 bytes"),
        ({"first": 6}, "first 6, last 5"),
        ({"first": 0}, "first 0"),
        ({"last": 2**64 - 1}, "last 18446744073709551615"),
        ({"commit": 5}, "commit 5"),
        ({"count": 2}, "2 records"),
        ({"count": 1}, "do not fit"),
        ({"flags": 1}, "flags 1"),
        ({"version": 0}, "version 0"),
    ],
)
def test_a_header_that_cannot_be_is_refused_by_name(changes: dict[str, int], says: str) -> None:
    with pytest.raises(CorruptionError, match=says) as caught:
        read_header(b"xyz" + sealed(**changes), 3, file="f.log", base=1000)
    assert (caught.value.file, caught.value.offset) == ("f.log", 1003)


def test_a_newer_batch_is_refused_as_newer() -> None:
    with pytest.raises(FormatVersionError, match="version 2; this release knows versions up to 1") as caught:
        read_header(sealed(version=2), file="f.log")
    assert (caught.value.file, caught.value.found, caught.value.known) == ("f.log", 2, 1)


def resealed(data: bytes, at: int, value: bytes) -> bytes:
    """With other bytes at a place, and the batch's checksum right again."""
    changed = data[:at] + value + data[at + len(value) :]
    return struct.pack("<I", crc32c(changed[4:])) + changed[4:]


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (HEADER_BYTES + 4, b"\x05"),  # a type that isn't
        (HEADER_BYTES + 5, b"\xff\xff"),  # a key length beyond the batch
        (HEADER_BYTES + 7, b"\xff\xff\xff\xff"),  # a value length beyond the batch
        (HEADER_BYTES + 7, b"\x00"),  # a value that ends too early
        (HEADER_BYTES + 11, b"\x08"),  # an index twice
        (HEADER_BYTES + 11, b"\x09"),  # an index beyond the batch
    ],
)
def test_records_that_do_not_fill_their_batch_are_refused(at: int, value: bytes) -> None:
    data = resealed(batch(7, put(b"key", b"value"), put(b"key", b"value")), at, value)
    header = check_batch(data)
    with pytest.raises(CorruptionError):
        check_records(data, header)


def test_iterating_over_records_stays_inside_the_batch() -> None:
    data = resealed(batch(7, put(b"key", b"value")), HEADER_BYTES + 7, b"\xff\xff\xff\x7f")
    with pytest.raises(CorruptionError):
        list(iter_records(data))


def test_what_does_not_fit_the_format_is_not_encoded() -> None:
    with pytest.raises(RecordTooLargeError, match="record 1 of the batch"):
        batch(1, put(b"k", b""), put(bytes(65536), b""))
    with pytest.raises(RecordTooLargeError, match=f"at most {MAX_RECORD_BYTES}"):
        batch(1, put(b"k", bytes(MAX_RECORD_BYTES - RECORD_BYTES)))
    assert batch(1, put(b"k", bytes(MAX_RECORD_BYTES - RECORD_BYTES - 1)))
    with pytest.raises(RecordTooLargeError, match="smaller batches"):
        batch(1, *[put(b"k", bytes(1 << 20))] * 64)
    with pytest.raises(ValueError, match="needs a record"):
        batch(1)
    with pytest.raises(ValueError, match="commit index 1 is not below"):
        batch(1, put(b"k", b""), commit=1)
