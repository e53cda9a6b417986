"""One reply out of several requests' replies."""

from collections.abc import Callable, Sequence

from kvrouter.redis.requests import Request, Taker


class Joined:
    """Requests that are one command to their client. It takes their replies, in whatever order they come."""

    __slots__ = ("_join", "_left", "_taker", "cost", "deadline", "reply", "requests")

    def __init__(self, taker: Taker, join: Callable[[Sequence[bytes]], bytes], deadline: float) -> None:
        """`join` gets the raw replies in the order of `requests`, which are filled in before any is sent."""
        self._taker = taker
        self._join = join
        self._left = 0
        self.deadline = deadline
        self.requests: Sequence[Request] = ()
        self.cost = 0
        self.reply: bytes | None = None

    def of(self, requests: Sequence[Request]) -> None:
        """These are the requests, at least one."""
        self.requests = requests
        self.cost = sum(request.cost for request in requests)
        self._left = len(requests)

    def settled(self, cost: int) -> None:
        """One of them has its reply."""
        del cost
        self._left -= 1
        if not self._left:
            self.reply = self._join([part.reply or b"" for part in self.requests])
            self._taker.settled(self.cost)
