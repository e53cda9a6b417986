"""A command on its way to a node, and what becomes of the node's reply."""

from collections.abc import Callable, Sequence
from typing import Protocol

# A node that replies so has certainly not done the command: the map is looked at again and the command sent again.
REFUSALS = (b"-MOVED ", b"-CLUSTERDOWN ", b"-TRYAGAIN ", b"-ASK ", b"-LOADING ")
_ERROR = ord("-")


def is_refusal(reply: bytes) -> bool:
    """Whether a node has certainly not done what it was asked, because of the cluster's state."""
    return reply[0] == _ERROR and reply.startswith(REFUSALS)


class Taker(Protocol):
    """Who waits for a reply."""

    def settled(self, request: "Request") -> None:
        """The request has its reply now."""
        ...


class Request:
    """One command for one partition. Its reply is set once; what comes later is dropped.

    `slot` is that of all its keys; a command without keys has -1 and stays with its partition. `deadline` is the event
    loop's clock. `on_reply` makes of the node's reply what the taker gets. `sent`: it may be done or be done yet; if not,
    it was certainly not done.
    """

    __slots__ = ("data", "deadline", "keys", "on_reply", "reply", "sent", "slot", "taker", "writes")

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
        self.on_reply = on_reply
        self.reply: bytes | None = None
        self.sent = True  # as it mostly is at once

    def settle(self, reply: bytes) -> None:
        """Give the reply, unless there is one already."""
        if self.reply is None:
            self.reply = reply if self.on_reply is None else self.on_reply(reply)
            self.taker.settled(self)
