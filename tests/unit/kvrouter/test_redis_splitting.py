"""Commands on keys of several slots, and SCAN over several partitions."""

import pytest

from kvcommon.slots import slot_of
from kvrouter.redis.cursors import CursorError, read_cursor, with_router_cursor
from kvrouter.redis.splitting import join, split

UNKNOWN = b"-OUTCOMEUNKNOWN who knows\r\n"


def test_keys_of_one_slot_stay_together_in_order() -> None:
    """Each part has its values beside its keys."""
    parts = split(b"MSET", [b"a", b"1", b"b", b"2", b"{a}", b"3", b"a", b"4"])

    assert [part.command for part in parts] == [(b"MSET", b"a", b"1", b"{a}", b"3", b"a", b"4"), (b"MSET", b"b", b"2")]
    assert [part.slot for part in parts] == [slot_of(b"a"), slot_of(b"b")]
    assert [part.positions for part in parts] == [(0, 2, 3), (1,)]


def test_values_come_back_in_the_order_asked() -> None:
    """Nil among them."""
    parts = split(b"MGET", [b"a", b"b", b"{a}", b"a"])

    reply = join(b"MGET", parts, [b"*3\r\n$1\r\n1\r\n$-1\r\n$1\r\n1\r\n", b"*1\r\n$1\r\n2\r\n"])

    assert reply == b"*4\r\n$1\r\n1\r\n$1\r\n2\r\n$-1\r\n$1\r\n1\r\n"


@pytest.mark.parametrize("name", [b"DEL", b"UNLINK", b"EXISTS", b"TOUCH"])
def test_counts_are_summed(name: bytes) -> None:
    """Over all slots."""
    assert join(name, split(name, [b"a", b"b"]), [b":2\r\n", b":1\r\n"]) == b":3\r\n"


def test_an_error_of_one_part_is_the_reply() -> None:
    """That something may have been done is said before why something was not."""
    parts = split(b"MSET", [b"a", b"1", b"b", b"2", b"c", b"3"])

    assert join(b"MSET", parts, [b"+OK\r\n", b"-ERR x\r\n", b"+OK\r\n"]) == b"-ERR x\r\n"
    assert join(b"MSET", parts, [b"-ERR x\r\n", b"+OK\r\n", UNKNOWN]) == UNKNOWN
    assert join(b"MSET", parts, [b"+OK\r\n"] * 3) == b"+OK\r\n"


def test_a_scan_goes_through_all_partitions_and_ends() -> None:
    """The cursors a client is given lead through each node's own."""
    partitions = (0, 2, 3)
    nodes = {0: {0: 7, 7: 0}, 2: {0: 0}, 3: {0: 2**40, 2**40: 0}}

    seen, cursor = [], b"0"
    while True:
        partition, theirs = read_cursor(cursor, partitions)
        seen.append((partition, theirs))
        text = b"%d" % nodes[partition][theirs]
        reply = with_router_cursor(b"*2\r\n$%d\r\n%s\r\n*1\r\n$1\r\nk\r\n" % (len(text), text), partition, partitions)
        assert reply.endswith(b"*1\r\n$1\r\nk\r\n")
        cursor = reply.split(b"\r\n")[2]
        if cursor == b"0":
            break

    assert seen == [(0, 0), (0, 7), (2, 0), (3, 0), (3, 2**40)]


@pytest.mark.parametrize("text", [b"x", b"", b"-1", b"1025", b"99999999999999999999999"])
def test_a_cursor_that_was_never_given_is_refused(text: bytes) -> None:
    """Also one of a partition that there is not."""
    with pytest.raises(CursorError):
        read_cursor(text, (0, 2))


def test_an_error_of_a_scan_goes_through() -> None:
    """It has no cursor."""
    assert with_router_cursor(b"-ERR syntax error\r\n", 0, (0,)) == b"-ERR syntax error\r\n"
