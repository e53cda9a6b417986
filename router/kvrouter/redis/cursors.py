"""SCAN over all partitions, one after the other: the partition is in the cursor that the client holds. Pure.

A client's cursor is `node's cursor * 1024 + partition`, so it is 0 only at the beginning and, as a reply, at the end.
"""

from collections.abc import Sequence

from kvcommon.versions import MAX_PARTITIONS
from kvrouter.redis.replies import ReplyError, items_of

MAX_CURSOR = 2**64 - 1  # clients keep it in 64 bits


class CursorError(ValueError):
    """A cursor that no reply of SCAN had."""


def read_cursor(text: bytes, partitions: Sequence[int]) -> tuple[int, int]:
    """(partition, its node's cursor) of a client's cursor; `partitions` are all of the map, ascending.

    Raises CursorError.
    """
    if not text.isdigit() or (cursor := int(text)) > MAX_CURSOR:
        raise CursorError(f"{text!r} is no cursor")
    partition, rest = cursor % MAX_PARTITIONS, cursor // MAX_PARTITIONS
    if cursor == 0:
        return partitions[0], 0
    if partition not in partitions:
        raise CursorError(f"{text!r} is a cursor of partition {partition}, which there is not")
    return partition, rest


def with_router_cursor(reply: bytes, partition: int, partitions: Sequence[int]) -> bytes:
    """A node's reply to SCAN with its cursor made a client's: of the same partition, the next one, or 0.

    Raises ReplyError.
    """
    if not reply.startswith(b"*"):
        return reply  # an error
    try:
        cursor, keys = items_of(reply)
        rest = int(cursor.split(b"\r\n")[1])
    except (ValueError, IndexError):
        raise ReplyError(f"{reply[:40]!r} is no reply to SCAN") from None
    following = next((p for p in partitions if p > partition), 0)
    ours = rest * MAX_PARTITIONS + partition if rest else following
    text = b"%d" % ours
    return b"*2\r\n$%d\r\n%s\r\n%s" % (len(text), text, keys)
