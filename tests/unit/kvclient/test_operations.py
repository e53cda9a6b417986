"""What is checked before anything is sent."""

from typing import cast

import pytest

from kvclient.errors import InvalidArgumentError
from kvclient.operations import (
    Operation,
    ReadMode,
    ReadProfile,
    check_key,
    check_operations,
    check_value,
    check_version,
    read_profile,
)
from kvclient.units import size_of
from kvproto.pipeline import Columns


@pytest.mark.parametrize("key", [b"", bytes(4097), "k", None, 7, bytearray(b"k")])
def test_a_key_is_1_to_4096_bytes(key: object) -> None:
    with pytest.raises(InvalidArgumentError, match="a key"):
        check_key(key)
    check_key(b"k")
    check_key(bytes(4096))


@pytest.mark.parametrize("value", ["v", None, bytes((1 << 20) + 1)])
def test_a_value_is_at_most_1_mib_of_bytes(value: object) -> None:
    with pytest.raises(InvalidArgumentError, match="a value"):
        check_value(value)
    check_value(bytes(1 << 20))
    check_value(b"")


@pytest.mark.parametrize("version", [-1, 1 << 64, "3", 1.5])
def test_an_expected_version_is_an_unsigned_64_bit_number(version: object) -> None:
    with pytest.raises(InvalidArgumentError, match="an expected version"):
        check_version(version)
    check_version(None)
    check_version(0)


def test_a_batch_names_which_operation_is_wrong() -> None:
    with pytest.raises(InvalidArgumentError, match="operation 1 of the batch: a key"):
        check_operations([Operation.get(b"k"), Operation.put(b"", b"v")])
    with pytest.raises(InvalidArgumentError, match="at most 1000 operations; got 1001"):
        check_operations([Operation.get(b"k")] * 1001)
    with pytest.raises(InvalidArgumentError, match="at most 4194304 bytes"):
        check_operations([Operation.put(b"k", bytes(1 << 20))] * 4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Operation.get(bytes(4097)), "a key has 1 to 4096 bytes; got 4097"),
        (Operation.put(b"k", bytes((1 << 20) + 1)), "a value has at most 1048576 bytes; got 1048577"),
        (Operation.put(b"k", cast("bytes", "v")), "a value is bytes; got str"),
        (Operation.get(cast("bytes", bytearray(b"k"))), "a key is bytes; got bytearray"),
        (Operation.put(b"k", b"", expected_version=-1), "an expected version"),
    ],
)
def test_whatever_is_wrong_with_one_of_many_is_named(wrong: Operation, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"operation 2 of the batch: {message}"):
        check_operations([Operation.put(b"a", b"v"), Operation.get(b"b"), wrong, Operation.get(b"c")])


def test_operations_that_are_alike_are_columns_that_know_their_size() -> None:
    """The largest keys and values that may be sent, and empty ones."""
    operations = [Operation.put(bytes(4096), bytes(1 << 20)), Operation.put(b"k", b""), Operation.put(b"k2", b"v")]
    checked = check_operations(operations)
    assert list(checked) == operations
    assert isinstance(checked, Columns)
    assert checked.size == 4096 + (1 << 20) + 4
    assert size_of(checked) == size_of(list(checked)) == size_of(checked[:]), "counted or not"


def test_a_largest_lag_goes_with_bounded_reads_and_with_no_other() -> None:
    assert read_profile(ReadMode.BOUNDED, 0.25) == ReadProfile(ReadMode.BOUNDED, 250)
    for mode, lag in ((ReadMode.BOUNDED, None), (ReadMode.BOUNDED, 0.0), (ReadMode.ANY, 1.0)):
        with pytest.raises(InvalidArgumentError, match="max_lag"):
            read_profile(mode, lag)
