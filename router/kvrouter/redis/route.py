"""Where one partition's commands go: connections to its leader, and the lanes that wait for one."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from kvrouter.redis.backend import Backend
from kvrouter.redis.lanes import Connection, Lane
from kvrouter.redis.requests import Request
from kvrouter.redis.turn import Turn

log = structlog.get_logger()

CONNECTIONS = 2  # to a leader, for each protocol version in use
CONNECT_SECONDS = 1.0
RETIRE_SECONDS = 1.0  # which a leader that leads no more has for its last replies
FIRST_RETRY, LAST_RETRY = 0.01, 0.25  # seconds between attempts while nobody leads

Dial = Callable[[str, Backend], Awaitable[None]]
"""Connects a protocol to host:port; raises OSError."""


class Route:
    """One partition's road (see `lanes.Road`)."""

    def __init__(
        self,
        partition: int,
        *,
        loop: asyncio.AbstractEventLoop,
        turn: Turn,
        dial: Dial,
        greeting: Callable[[int], bytes],
        unknown: bytes,
        owner_of: Callable[[int], int],
        rehome: Callable[[Lane, Request], None],
    ) -> None:
        """`greeting` opens a connection in a protocol version; `owner_of` is the map; `unknown` as for Backend."""
        self.partition = partition
        self._loop = loop
        self._turn = turn
        self._dial = dial
        self._greeting = greeting
        self._unknown = unknown
        self._owner_of = owner_of
        self._rehome = rehome
        self._leader = ""  # host:port of its Redis port
        self._backends: dict[tuple[int, int], Backend] = {}  # by protocol and number
        self._connecting: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._retired: set[Backend] = set()
        self._waiting: dict[Lane, None] = {}
        self._retry: asyncio.TimerHandle | None = None
        self._delay = FIRST_RETRY
        self._waited = 0.0  # when a lane began to wait last

    # -- what it is told -------------------------------------------------------------------------------------------

    def lead(self, address: str) -> None:
        """The leader's Redis address, or "" while nobody leads or the leader has none."""
        if address == self._leader:
            return
        self._leader = address
        for task in self._connecting.values():
            task.cancel()
        self._connecting.clear()
        for backend in self._backends.values():
            self._retired.add(backend)
            backend.retire()
            self._loop.call_later(RETIRE_SECONDS, backend.abort)
        self._backends.clear()
        self._waited = 0.0
        self._resume_all()

    def look(self, patience: int) -> None:
        """End connections that have been silent for so many looks."""
        for backend in list(self._backends.values()):
            backend.look(patience)

    def forget(self, lane: Lane) -> None:
        """The lane's client has gone."""
        lane.drop()
        self._waiting.pop(lane, None)

    def close(self) -> None:
        """End all connections."""
        if self._retry is not None:
            self._retry.cancel()
        for task in self._connecting.values():
            task.cancel()
        for backend in (*self._backends.values(), *self._retired):
            backend.abort()

    @property
    def waiting(self) -> int:
        """Lanes that wait for a leader."""
        return len(self._waiting)

    # -- what lanes ask --------------------------------------------------------------------------------------------

    def connection(self, lane: Lane) -> Connection | None:
        """An open connection for the lane, or None, and one is being made if there is a leader."""
        key = (lane.protocol, lane.number % CONNECTIONS)
        backend = self._backends.get(key)
        if backend is not None and backend.open:
            return backend
        if self._leader and key not in self._connecting:
            self._connecting[key] = self._loop.create_task(self._connect(self._leader, key))
        return None

    def wait(self, lane: Lane) -> None:
        """The lane is resumed when a connection has been made, the leader changes, or after a while."""
        self._waiting[lane] = None
        if self._retry is not None:
            return
        now = self._loop.time()
        self._delay = FIRST_RETRY if now - self._waited > LAST_RETRY * 2 else min(2 * self._delay, LAST_RETRY)
        self._waited = now
        self._retry = self._loop.call_later(self._delay, self._again)

    def belongs(self, request: Request) -> bool:
        return request.slot < 0 or self._owner_of(request.slot) == self.partition

    def rehome(self, lane: Lane, request: Request) -> None:
        self._rehome(lane, request)

    # -- the work --------------------------------------------------------------------------------------------------

    def _again(self) -> None:
        self._retry = None
        self._resume_all()

    def _resume_all(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for lane in waiting:
            lane.resume()

    async def _connect(self, address: str, key: tuple[int, int]) -> None:
        backend = Backend(address, self._turn, self._unknown, self._ended)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._dial(address, backend)
        except OSError as error:  # TimeoutError is one
            log.info("node not reached", partition=self.partition, address=address, error=str(error) or "no answer")
            return
        except asyncio.CancelledError:
            backend.abort()
            raise
        finally:
            if self._connecting.get(key) is asyncio.current_task():
                del self._connecting[key]
        if not backend.open:
            return  # it has ended already; who waits tries again after a while
        greeting = self._greeting(key[0])
        if greeting:
            backend.greet(greeting)
        self._backends[key] = backend
        self._resume_all()

    def _ended(self, backend: Backend) -> None:
        self._retired.discard(backend)
        for key, known in list(self._backends.items()):
            if known is backend:
                del self._backends[key]
