"""The order of one client's commands for one partition, also when some are refused and sent again: decides, does no I/O.

Commands of a lane are sent without waiting for each other, over one connection, so a node does them in order. A refused
one (MOVED, CLUSTERDOWN, ...) was certainly not done and is sent again, but not before every command sent after it has
its reply, and new ones wait behind it. Should the node have done a later command in the same slot meanwhile, the refused
one is not sent again, as it would now come second: its client is told that it was not done.

A connection that ends leaves commands whose fate nobody knows: reads are sent again like refused ones, writes are not.
"""

from collections import deque
from typing import Protocol

from kvcommon.slots import slot_of
from kvrouter.redis.requests import Request, is_refusal

OVERTAKEN = (
    b"-TRYAGAIN Not done: refused while the partition changed its leader, and a later command on its slot was done\r\n"
)


class Connection(Protocol):
    """A connection to a partition's leader. Replies come in the order of the requests."""

    @property
    def open(self) -> bool:
        """Whether new requests may be sent."""
        ...

    def send(self, lane: "Lane", request: Request) -> None:
        """Send; the lane hears `replied`, or `lost` when the connection ends before."""
        ...


class Road(Protocol):
    """Where a lane's commands go."""

    def connection(self, lane: "Lane") -> Connection | None:
        """An open connection to the leader; None: not now, and `Lane.resume` will be called when there is one."""
        ...

    def wait(self, lane: "Lane") -> None:
        """Call `resume` after a while, or when there is a connection or another leader."""
        ...

    def belongs(self, request: Request) -> bool:
        """Whether the request's slot is still this partition's."""
        ...

    def rehome(self, lane: "Lane", request: Request) -> None:
        """Send the request to the partition that its slot belongs to now."""
        ...


class Lane:
    """One client's commands for one partition. `number` chooses among the connections; `protocol` is 2 or 3."""

    __slots__ = ("_connection", "_refused", "_road", "_under_way", "_waiting", "number", "owner", "protocol")

    def __init__(self, owner: object, road: Road, number: int, protocol: int) -> None:
        """`owner` is whoever's commands these are, for `Road.rehome`."""
        self.owner = owner
        self.number = number
        self.protocol = protocol
        self._road = road
        self._connection: Connection | None = None
        self._under_way = 0
        self._refused: list[Request] = []
        self._waiting: deque[Request] = deque()

    @property
    def waits(self) -> bool:
        """Whether something is to be sent, for the first time or again."""
        return bool(self._waiting or self._refused)

    def submit(self, request: Request) -> None:
        """Send a new request now, or when its turn comes."""
        connection = self._connection
        if connection is not None and connection.open and not self._refused and not self._waiting:
            self._under_way += 1
            connection.send(self, request)
            return
        request.refused(b"")
        self._waiting.append(request)
        if not self._under_way:
            self.resume()

    def resume(self) -> None:
        """Send what waits, if its time has come."""
        if self._under_way or not self.waits:
            return
        self._waiting.extendleft(reversed(self._refused))
        self._refused.clear()
        waiting, self._waiting = self._waiting, deque()
        while waiting:
            request = waiting.popleft()
            if request.reply is not None:
                continue  # its deadline has passed
            if not self._road.belongs(request):
                self._road.rehome(self, request)
                continue
            connection = self._road.connection(self)
            if connection is None:
                waiting.appendleft(request)
                self._waiting = waiting
                self._road.wait(self)
                return
            self._connection = connection
            self._under_way += 1
            request.sent = True
            connection.send(self, request)

    def replied(self, request: Request, reply: bytes) -> None:
        """The node has replied to the oldest request under way."""
        self._under_way -= 1
        if is_refusal(reply):
            request.refused(reply)
            self._refused.append(request)
        else:
            if self._refused:
                self._overtake(request)
            request.settle(reply)
        if not self._under_way and self.waits:
            self._drained()

    def lost(self, request: Request, unknown: bytes) -> None:
        """The connection has ended before the oldest request under way got a reply."""
        self._under_way -= 1
        if not request.writes:
            request.refused(b"")
            self._refused.append(request)
        else:
            self._overtake(request)
            request.settle(unknown)
        if not self._under_way and self.waits:
            self._drained()

    def drop(self) -> None:
        """Forget what waits: its client has gone."""
        self._refused.clear()
        self._waiting.clear()

    def _drained(self) -> None:
        """Nothing is under way any more: what was refused has all its successors' fates known."""
        if self._refused:
            self._road.wait(self)
        else:
            self.resume()

    def _overtake(self, later: Request) -> None:
        """A later command was done, or may have been: refused ones in its slot must not follow it.

        Not only those on its keys: one command may carry what a key holds to another of its slot.
        """
        slots = set(map(slot_of, later.keys))
        for request in self._refused:
            if not slots.isdisjoint(map(slot_of, request.keys)):
                request.settle(OVERTAKEN)
        self._refused = [request for request in self._refused if request.reply is None]
