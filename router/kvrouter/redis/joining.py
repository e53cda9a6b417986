"""One reply out of several requests' replies."""

from collections.abc import Callable, Sequence
from typing import Protocol

from kvrouter.redis.requests import Request


class Waiter(Protocol):
    """Who waits for the joined reply."""

    def settled(self, request: "Joined") -> None:
        """It is there."""
        ...


class Joined:
    """Requests that are one command to their client: the taker of theirs replies, in whatever order they come."""

    __slots__ = ("_join", "_left", "_waiter", "deadline", "reply", "requests")

    def __init__(self, waiter: Waiter, join: Callable[[Sequence[bytes]], bytes], deadline: float) -> None:
        """`join` gets the raw replies in the order of `requests`, which are filled in before any is sent."""
        self._waiter = waiter
        self._join = join
        self._left = 0
        self.deadline = deadline
        self.requests: Sequence[Request] = ()
        self.reply: bytes | None = None

    def of(self, requests: Sequence[Request]) -> None:
        """These are the requests, at least one."""
        self.requests = requests
        self._left = len(requests)

    def settled(self, request: Request) -> None:
        del request
        self._left -= 1
        if not self._left:
            self.reply = self._join([part.reply or b"" for part in self.requests])
            self._waiter.settled(self)
