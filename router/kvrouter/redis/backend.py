"""A connection to a node's Redis port: requests out in one write per turn, replies matched in order."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

import structlog

from kvrouter.redis.lanes import Lane
from kvrouter.redis.replies import ReplyError, ReplySplitter
from kvrouter.redis.requests import Request
from kvrouter.redis.turn import Turn

log = structlog.get_logger()


class Backend(asyncio.Protocol):
    """Open from `connected` until it is retired or ends; `on_end` hears of the end of one that was open."""

    def __init__(self, address: str, turn: Turn, unknown: bytes, on_end: Callable[["Backend"], None]) -> None:
        """`unknown` is the reply to a write whose fate is not known."""
        self.address = address
        self.open = False
        self._turn = turn
        self._unknown = unknown
        self._on_end = on_end
        self._transport: asyncio.Transport | None = None
        self._splitter = ReplySplitter()
        self._under_way: deque[tuple[Lane, Request]] = deque()
        self._greetings = 0  # replies to come that are nobody's
        self._out: list[bytes] = []
        self._retired = False
        self._silence = 0  # times it was looked at since it said something, while it owed replies

    # -- requests --------------------------------------------------------------------------------------------------

    def send(self, lane: Lane, request: Request) -> None:
        """Send at the end of this turn."""
        if not self._out:
            self._turn.add(self)
        self._out.append(request.data)
        self._under_way.append((lane, request))

    def flush(self) -> None:
        """Write what was sent."""
        data, self._out = b"".join(self._out), []
        if self._transport is not None:
            self._transport.write(data)

    def retire(self) -> None:
        """Take no more requests; end when those under way have their replies."""
        self.open = False
        self._retired = True
        if not self._under_way:
            self.abort()

    def look(self, patience: int) -> None:
        """End it if it has been looked at so often, owing replies, without a byte from it: its other end may be gone."""
        self._silence = self._silence + 1 if self._under_way else 0
        if self._silence > patience:
            log.info("a node does not answer", address=self.address, under_way=len(self._under_way))
            self.abort()

    def abort(self) -> None:
        """End now."""
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio's side --------------------------------------------------------------------------------------------

    def greet(self, data: bytes) -> None:
        """Send a command before all others, whose reply is dropped."""
        assert self._transport is not None, "not connected"
        self._greetings += 1
        self._transport.write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only
        self.open = not self._retired

    def data_received(self, data: bytes) -> None:
        under_way = self._under_way
        self._silence = 0
        try:
            for reply in self._splitter.feed(data):
                if self._greetings:
                    self._greetings -= 1
                    continue
                lane, request = under_way.popleft()
                lane.replied(request, reply)
        except (ReplyError, IndexError) as error:
            log.warning("a node's reply is out of order", address=self.address, error=str(error))
            self.abort()
            return
        if self._retired and not under_way:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._transport = None
        lost, self._under_way = self._under_way, deque()
        if lost:
            log.info("connection to node lost", address=self.address, under_way=len(lost), error=str(exc or "ended"))
        for lane, request in lost:
            lane.lost(request, self._unknown)
        self._on_end(self)
