"""Single raw replies out of a stream, however it was cut on its way."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvrouter.redis.replies import ReplyError, ReplySplitter, integer_of, items_of

REPLIES = [
    b"+OK\r\n",
    b"-ERR no\r\n",
    b":-12\r\n",
    b"$5\r\nhe\r\no\r\n",
    b"$0\r\n\r\n",
    b"$-1\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b"*3\r\n$-1\r\n:5\r\n*2\r\n_\r\n$2\r\n*1\r\n",
    b"%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n$1\r\nx\r\n",
    b"_\r\n",
    b"#t\r\n",
]


@settings(deadline=None)
@given(
    replies=st.lists(st.sampled_from(REPLIES), max_size=20),
    cuts=st.lists(st.integers(min_value=1, max_value=30), min_size=1, max_size=20),
)
def test_replies_come_out_as_they_went_in(replies: list[bytes], cuts: list[int]) -> None:
    """Whatever the pieces in which the bytes arrive."""
    stream, splitter, got = b"".join(replies), ReplySplitter(), []
    position = turn = 0
    while position < len(stream):
        size = cuts[turn % len(cuts)]
        got += splitter.feed(stream[position : position + size])
        position, turn = position + size, turn + 1
    assert got == replies


def test_what_is_no_reply_is_refused() -> None:
    """Another protocol's bytes are not taken for a reply."""
    with pytest.raises(ReplyError, match="is that a Redis port"):
        ReplySplitter().feed(b"HTTP/1.1 400 Bad Request\r\n")
    with pytest.raises(ReplyError, match="no length"):
        ReplySplitter().feed(b"$x\r\n")


def test_an_array_comes_apart() -> None:
    """Items are raw, arrays among them whole."""
    assert items_of(b"*3\r\n$1\r\na\r\n*1\r\n:1\r\n$-1\r\n") == [b"$1\r\na\r\n", b"*1\r\n:1\r\n", b"$-1\r\n"]
    assert items_of(b"*0\r\n") == []
    with pytest.raises(ReplyError):
        items_of(b":1\r\n")


def test_an_integer_is_read() -> None:
    """Nothing else is."""
    assert integer_of(b":-7\r\n") == -7
    with pytest.raises(ReplyError):
        integer_of(b"+OK\r\n")
