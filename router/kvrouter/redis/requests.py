"""A command on its way to a node, and what becomes of the node's reply."""

from collections.abc import Callable, Sequence
from typing import Protocol

from kvresp.connection import READ_COST

# A node that replies so has certainly not done the command: the map is looked at again and the command sent again.
REFUSALS = (b"-MOVED ", b"-CLUSTERDOWN ", b"-TRYAGAIN ", b"-NOREPLICAS ", b"-ASK ", b"-LOADING ")
_TELLING = (b"-TRYAGAIN ", b"-NOREPLICAS ")  # those that tell a client without a cluster why
_ERROR = ord("-")
_WRITE_COST = 512  # bytes of a write that is under way, beside its own


def is_refusal(reply: bytes) -> bool:
    """Whether a node has certainly not done what it was asked, because of the cluster's state."""
    return reply[0] == _ERROR and reply.startswith(REFUSALS)


def pack(args: Sequence[bytes]) -> bytes:
    """A command's bytes, as an array."""
    if len(args) == 2:  # most commands
        a, b = args
        return b"*2\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(a), a, len(b), b)
    if len(args) == 3:
        a, b, c = args
        return b"*3\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(a), a, len(b), b, len(c), c)
    return b"*%d\r\n%b" % (len(args), b"".join([b"$%d\r\n%b\r\n" % (len(a), a) for a in args]))


class Taker(Protocol):
    """Who waits for a reply."""

    def settled(self, cost: int) -> None:
        """A request of this cost has its reply now."""
        ...


class Request:
    """One command for one partition; a cell among its client's replies. Its reply is set once, later ones are dropped.

    `slot` is that of all its keys; a command without keys has -1 and stays with its partition. `deadline` is the event
    loop's clock. `on_reply` makes of the node's reply what the client gets. `sent`: it may be done, or be done yet; if
    not, it was certainly not done, and `why_not` is the last node's word on it, if that says something to the client.
    """

    __slots__ = ("cost", "data", "deadline", "keys", "on_reply", "reply", "sent", "slot", "taker", "why_not", "writes")

    def __init__(  # noqa: PLR0917 - made for every command; names cost time
        self,
        taker: Taker,
        data: bytes,
        slot: int,
        keys: Sequence[bytes],
        deadline: float,
        writes: bool,
        on_reply: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self.taker = taker
        self.data = data
        self.slot = slot
        self.keys = keys
        self.deadline = deadline
        self.writes = writes
        self.cost = len(data) + (_WRITE_COST if writes else READ_COST)
        self.on_reply = on_reply
        self.reply: bytes | None = None
        self.sent = True  # as it mostly is at once
        self.why_not = b""

    def refused(self, reply: bytes) -> None:
        """A node has not done it, or it was not sent yet (an empty reply)."""
        self.sent = False
        if reply.startswith(_TELLING):
            self.why_not = reply

    def settle(self, reply: bytes) -> None:
        """Give the reply, unless there is one already."""
        if self.reply is None:
            self.reply = reply if self.on_reply is None else self.on_reply(reply)
            self.taker.settled(self.cost)
