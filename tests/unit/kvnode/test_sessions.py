"""A batch's outcomes as bytes in the log."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvcommon.errors import KVClusterError
from kvnode.operations import Code, Kind, Operation, Outcome, Written
from kvnode.sessions import decode_outcomes, encode_outcomes

rows = st.lists(st.tuples(st.sampled_from(Kind), st.sampled_from(Code), st.integers(0, (1 << 64) - 1)), max_size=20)


@given(rows)
def test_outcomes_come_back_without_the_gets(rows: list[tuple[Kind, Code, int]]) -> None:
    """Codes and versions of writes; a Get is to be read again."""
    operations: list[Operation] = [(kind, b"k", b"", None) for kind, _, _ in rows]
    outcomes = [Outcome(code, version) for _, code, version in rows]
    back = decode_outcomes(encode_outcomes(operations, outcomes))
    assert list(back) == [None if op[0] == Kind.GET else out for op, out in zip(operations, outcomes, strict=True)]


@given(st.integers(1, 1000), st.integers(0, 1 << 63))
def test_writes_that_all_were_done_take_a_few_bytes(count: int, first: int) -> None:
    """However many they are."""
    data = encode_outcomes([(Kind.PUT, b"k", b"", None)] * count, Written(range(first, first + count)))
    assert len(data) == 13
    assert list(decode_outcomes(data)) == [Outcome(Code.OK, first + i) for i in range(count)]


@pytest.mark.parametrize(
    "data", [b"", b"\x02", b"\x01\x00", b"\x01" + bytes(10), b"\x02" + bytes(11), b"\x02\xff\xff" + bytes(10)]
)
def test_what_is_no_session_record_is_refused(data: bytes) -> None:
    """Of another format or length."""
    with pytest.raises(KVClusterError):
        decode_outcomes(data)


@given(st.binary(max_size=40))
def test_any_bytes_are_outcomes_or_refused(data: bytes) -> None:
    """Nothing else comes of them."""
    with contextlib.suppress(KVClusterError):
        decode_outcomes(data)
