"""What all clients' connections share: the way to the nodes, bounds, counts."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from kvcommon.numbers import CLIENT_DEADLINE
from kvcoord.view import ClusterView
from kvrouter.redis.forwarder import Forwarder


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the door. Bytes are of commands without a reply and of replies that the client has not taken."""

    connections: int = 10_000
    client_bytes: int = 1 << 20  # of one client; above it, nothing more is read from it
    total_bytes: int = 256 << 20  # of all clients; above it, who has unanswered commands sends no more
    output_bytes: int = 256 << 20  # of replies to one client that does not take them: its connection is ended
    deadline: float = CLIENT_DEADLINE  # seconds for a command


class Client(Protocol):
    """A client's connection, as the hub knows it."""

    @property
    def idle(self) -> bool:
        """Whether it owes its client nothing."""
        ...

    def expire(self, now: float) -> None:
        """Answer commands whose deadline has passed."""
        ...

    def stop(self) -> None:
        """Take no more commands, and end when those taken are answered."""
        ...

    def abort(self) -> None:
        """End now."""
        ...


class Hub:
    """One per router."""

    def __init__(self, loop: asyncio.AbstractEventLoop, forwarder: Forwarder, limits: Limits) -> None:
        self.loop = loop
        self.forwarder = forwarder
        self.limits = limits
        self.clients: set[Client] = set()
        self.held_bytes = 0
        self.counted: Callable[[float], None] = lambda _: None  # told how many commands were received
        self.last_id = 0
        self.view = ClusterView()
        self._emptied = asyncio.Event()

    def view_changed(self, view: ClusterView) -> None:
        """Follow map and leaders."""
        self.view = view
        self.forwarder.view_changed(view)

    def joined(self, client: Client) -> int | None:
        """A new client's number, or None: there are too many."""
        if len(self.clients) >= self.limits.connections:
            return None
        self.clients.add(client)
        self.last_id += 1
        return self.last_id

    def left(self, client: Client) -> None:
        """A client's connection has ended."""
        self.clients.discard(client)
        if not self.clients:
            self._emptied.set()

    def expire(self, now: float) -> None:
        """Answer all commands whose deadline has passed."""
        for client in list(self.clients):
            client.expire(now)

    async def drain(self, grace: float) -> None:
        """Have every client's commands answered, within so many seconds, and end the connections."""
        self._emptied.clear()
        for client in list(self.clients):
            client.stop()
        if self.clients:
            try:
                async with asyncio.timeout(grace):
                    await self._emptied.wait()
            except TimeoutError:
                for client in list(self.clients):
                    client.abort()

    def close(self) -> None:
        """End the connections to nodes."""
        self.forwarder.close()
