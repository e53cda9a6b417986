"""Replies as bytes, in both protocols."""

import hiredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvresp.replies import Error, Reply, Set, Simple, Verbatim, encode


@pytest.mark.parametrize(
    ("reply", "resp2", "resp3"),
    [
        (None, b"$-1\r\n", b"_\r\n"),
        (-5, b":-5\r\n", b":-5\r\n"),
        (True, b":1\r\n", b"#t\r\n"),
        (b"a\r\nb", b"$4\r\na\r\nb\r\n", b"$4\r\na\r\nb\r\n"),
        ("ü", b"$2\r\n\xc3\xbc\r\n", b"$2\r\n\xc3\xbc\r\n"),
        (Simple("OK"), b"+OK\r\n", b"+OK\r\n"),
        (Error("ERR a\r\nb"), b"-ERR a  b\r\n", b"-ERR a  b\r\n"),
        (Verbatim("hi"), b"$2\r\nhi\r\n", b"=6\r\ntxt:hi\r\n"),
        ([1, [b"x", None]], b"*2\r\n:1\r\n*2\r\n$1\r\nx\r\n$-1\r\n", b"*2\r\n:1\r\n*2\r\n$1\r\nx\r\n_\r\n"),
        ((), b"*0\r\n", b"*0\r\n"),
        (Set([1]), b"*1\r\n:1\r\n", b"~1\r\n:1\r\n"),
        ({b"k": 1}, b"*2\r\n$1\r\nk\r\n:1\r\n", b"%1\r\n$1\r\nk\r\n:1\r\n"),
    ],
)
def test_replies_in_both_protocols(reply: Reply, resp2: bytes, resp3: bytes) -> None:
    """Byte by byte."""
    assert encode(reply, 2) == resp2
    assert encode(reply, 3) == resp3


VALUES = st.recursive(
    st.none() | st.integers(-(1 << 63), (1 << 63) - 1) | st.binary(), lambda v: st.lists(v, max_size=4), max_leaves=10
)


@settings(deadline=None)
@given(VALUES, st.sampled_from([2, 3]))
def test_a_client_reads_what_was_said(reply: Reply, protocol: int) -> None:
    """hiredis, which many clients have inside."""
    reader = hiredis.Reader()
    reader.feed(encode(reply, protocol))
    assert reader.gets() == reply


def test_what_is_no_reply_is_a_defect() -> None:
    """It says what it was."""
    with pytest.raises(TypeError, match="object"):
        encode(object(), 2)  # type: ignore[arg-type]
