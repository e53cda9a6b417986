"""ZooKeeper's client, kazoo, made async: the only module that imports it, and where its threads end.

It goes on connecting for as long as it lives: names are resolved anew each time round, an attempt waits half a second at most,
rounds are half a second apart at most, and less than that in the first seconds, in which an ensemble elects; a client whose own
thread has died is replaced by another. Beyond kazoo:

- A server that does not answer an attempt is left out of the next rounds: its machine may be gone, and each attempt would
  hold up those at the others.
- A server that gives no answer for a second is left for another. kazoo's own pings take up to four to find that out, and
  who claims a leadership has just lost a machine, often with a server on it.
- After being cut off for longer than any session lasts, a new session is begun. The old one remembers the newest
  transaction it saw, and servers that have lost their data would refuse it for ever.
"""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

import structlog
from kazoo.client import KazooClient
from kazoo.exceptions import BadVersionError, KazooException, NodeExistsError, NoNodeError
from kazoo.handlers.threading import KazooTimeoutError, SequentialThreadingHandler
from kazoo.protocol.states import KazooState, KeeperState
from kazoo.retry import KazooRetry

from kvcoord.contract import CoordinationUnavailableError

CONNECT_TIMEOUT: Final = 0.5
RECONNECT_DELAY: Final = 0.1
RECONNECT_MAX_DELAY: Final = 0.5
RECONNECT_BACKOFF: Final = 1.2  # 2.6 s until the longest delay
SILENT_FOR: Final = 3.0  # seconds that a server which did not answer an attempt is left out
CLOSE_TIMEOUT: Final = 2.0
PROBE_INTERVAL: Final = 0.5
PROBE_TIMEOUT: Final = 1.0
NEW_SESSION_AFTER: Final = 1.5  # times the session time-out

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Node:
    """A ZooKeeper node. `owner` is the session of an ephemeral one, otherwise 0; `born` is its creation's zxid."""

    data: bytes
    version: int
    born: int
    owner: int


class Created(Enum):
    """What became of a creation."""

    DONE = auto()
    EXISTS = auto()
    NO_PARENT = auto()


class Replaced(Enum):
    """What became of a guarded replacement."""

    DONE = auto()
    GUARD_CHANGED = auto()
    NODE_CHANGED = auto()


Watch = Callable[[], None]
"""Called once in the event loop, when the node changes or the connection is lost."""


class AsyncKazoo:
    """A ZooKeeper session after another, for as long as it is open.

    Every call raises CoordinationUnavailableError when there is no answer within `call_timeout` seconds or the
    connection is lost; a change may then yet be done.
    """

    def __init__(self, servers: Sequence[tuple[str, int]], *, session_timeout: float, call_timeout: float) -> None:
        """`on_connected` (settable) is called in the event loop after each connection."""
        self._hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in servers)
        self._session_timeout = session_timeout
        self._call_timeout = call_timeout
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Any = None
        self._up = asyncio.Event()
        self._down_since = 0.0
        self._supervisor: asyncio.Task[None] | None = None
        self._candidates = _Candidates()
        self._closed = False
        self.connections = 0  # how many there have been; a watch reads anew after each
        self.on_connected: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begin to connect."""
        self._loop = asyncio.get_running_loop()
        self._begin()
        self._supervisor = self._loop.create_task(self._supervise(), name="kvcoord-zookeeper")

    async def close(self) -> None:
        """End the session, waiting at most CLOSE_TIMEOUT seconds for the server."""
        self._closed = True
        self._up.clear()
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
        if self._client is None:
            return
        ended = asyncio.Event()
        self._end(self._client, ended)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await ended.wait()

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as known."""
        return self._up.is_set()

    @property
    def session_id(self) -> int:
        """The current session, 0 without one."""
        return 0 if self._client is None else int(self._client._session_id or 0)

    async def until_connected(self) -> None:
        """Wait, as long as it takes."""
        await self._up.wait()

    async def get(self, path: str, *, sync: bool) -> Node | None:
        """A node, None if it does not exist; after a `sync`, ordered after every write acknowledged before."""
        try:
            data, stat = await self._ask(lambda client: client.get_async(path), sync=path if sync else None)
        except NoNodeError:
            return None
        return Node(data, stat.version, stat.czxid, stat.ephemeralOwner)

    async def exists(self, path: str, watch: Watch, *, sync: bool = False) -> bool:
        """Whether a node exists, with a watch on it, or on its creation."""
        called = self._in_loop(watch)
        stat = await self._ask(lambda client: client.exists_async(path, called), sync=path if sync else None)
        return stat is not None

    async def children(self, path: str, watch: Watch | None = None, *, sync: bool = False) -> list[str] | None:
        """Names of the nodes below; None, without a watch, if the node does not exist."""
        called = None if watch is None else self._in_loop(watch)
        try:
            names: list[str] = await self._ask(
                lambda client: client.get_children_async(path, called), sync=path if sync else None
            )
        except NoNodeError:
            return None
        return names

    async def create(self, path: str, data: bytes, *, session: int | None = None) -> Created:
        """Make a lasting node."""
        try:
            await self._ask(lambda client: client.create_async(path, data), session=session)
        except NodeExistsError:
            return Created.EXISTS
        except NoNodeError:
            return Created.NO_PARENT
        return Created.DONE

    async def set(self, path: str, data: bytes, version: int, *, session: int | None = None) -> int | None:
        """The new version, or None if the node has another one than named or does not exist."""
        try:
            stat = await self._ask(lambda client: client.set_async(path, data, version), session=session)
        except (BadVersionError, NoNodeError):
            return None
        return int(stat.version)

    async def put_ephemeral(self, path: str, data: bytes, *, replace: bool, guard: str, version: int) -> Replaced:
        """In one transaction: if `guard` has this version, remove the node (if `replace`) and make it this session's."""

        def begin(client: Any) -> Any:
            transaction = client.transaction()
            transaction.check(guard, version)
            if replace:
                transaction.delete(path)
            transaction.create(path, data, ephemeral=True)
            return transaction.commit_async()

        results: list[object] = await self._ask(begin)
        if isinstance(results[0], (BadVersionError, NoNodeError)):
            return Replaced.GUARD_CHANGED
        if any(isinstance(result, Exception) for result in results):
            return Replaced.NODE_CHANGED
        return Replaced.DONE

    async def _ask(self, begin: Callable[[Any], Any], *, sync: str | None = None, session: int | None = None) -> Any:
        """Kazoo's answer. In this `session` or not at all: what is in kazoo's queue when a session ends is never sent."""
        if self._closed or self._loop is None:
            raise CoordinationUnavailableError(f"the connection to ZooKeeper at {self._hosts} is closed")
        try:
            async with asyncio.timeout(self._call_timeout):
                await self._up.wait()
                client = self._client
                if client is None:
                    raise CoordinationUnavailableError(f"the client of ZooKeeper at {self._hosts} ended by itself")
                synced = None if sync is None else self._answer(client.sync_async(sync))
                with client.fence:
                    if session is not None and session != (self.session_id or None):
                        text = f"the session with ZooKeeper at {self._hosts} is another now"
                        raise CoordinationUnavailableError(text)
                    answer = self._answer(begin(client))
                if synced is not None:
                    await asyncio.wait([synced, answer])
                    synced.result()
                return await answer
        except TimeoutError:
            raise CoordinationUnavailableError(
                f"no answer from ZooKeeper at {self._hosts} within {self._call_timeout} s"
            ) from None
        except (BadVersionError, NodeExistsError, NoNodeError):
            raise
        # RuntimeError: kazoo got an answer to another question; it ends the client, and another is made (`_changed`).
        except (KazooException, KazooTimeoutError, OSError, RuntimeError) as error:
            what = type(error).__name__ + (f" ({error})" if str(error) else "")
            raise CoordinationUnavailableError(f"ZooKeeper at {self._hosts}: {what}") from error

    def _answer(self, result: Any) -> "asyncio.Future[Any]":
        """Kazoo's answer as a future of the event loop."""
        assert self._loop is not None
        future: asyncio.Future[Any] = self._loop.create_future()
        future.add_done_callback(lambda f: None if f.cancelled() else f.exception())  # nobody may wait any more

        def settle() -> None:
            if future.done():
                return
            if result.successful():
                future.set_result(result.value)
            else:
                future.set_exception(result.exception)

        result.rawlink(lambda _: self._call_in_loop(settle))
        return future

    def _in_loop(self, watch: Watch) -> Callable[[object], None]:
        return lambda _event: self._call_in_loop(watch)

    def _call_in_loop(self, call: Callable[[], None]) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop has ended: nobody is left to be told
            self._loop.call_soon_threadsafe(call)

    def _begin(self) -> None:
        retry = KazooRetry(
            max_tries=-1,
            delay=RECONNECT_DELAY,
            max_delay=RECONNECT_MAX_DELAY,
            backoff=RECONNECT_BACKOFF,
            max_jitter=0.2,
        )
        client = _Client(
            hosts=self._hosts,
            timeout=self._session_timeout,
            handler=_Handler(self._candidates),
            connection_retry=retry,
            command_retry=KazooRetry(max_tries=1),
            logger=_quiet_logger(),
        )
        self._candidates.order_in(client)
        self._down_since = asyncio.get_running_loop().time()
        client.add_listener(lambda state: self._call_in_loop(lambda: self._changed(client, state)))
        self._client = client
        client.start_async()

    def _changed(self, client: Any, state: str) -> None:
        """A change of the connection, in the event loop."""
        if client is not self._client or self._closed:
            return
        if state == KazooState.CONNECTED and client.connected:
            self.connections += 1
            self._up.set()
            log.info("zookeeper connected", servers=self._hosts, session=f"{self.session_id:#x}")
            self.on_connected()
            return
        if self._up.is_set():
            log.warning("zookeeper connection lost", servers=self._hosts)
            self._down_since = asyncio.get_running_loop().time()
        if state == KazooState.LOST:
            log.warning("zookeeper session lost", servers=self._hosts)
        self._up.clear()
        if client.client_state in (KeeperState.CLOSED, KeeperState.AUTH_FAILED):
            log.error("zookeeper client ended by itself; making another", servers=self._hosts)
            self._client = None  # the supervisor makes another
            self._end(client, asyncio.Event())

    async def _supervise(self) -> None:
        """Leave a server that does not answer, a session that must have ended, a client that has given up."""
        while not self._closed:
            await asyncio.sleep(PROBE_INTERVAL)
            try:
                await self._look_after()
            except Exception:
                log.exception("zookeeper supervision failed; going on", servers=self._hosts)

    async def _look_after(self) -> None:
        client = self._client
        if client is None:
            self._begin()
        elif self._up.is_set():
            await self._probe(client)
        elif asyncio.get_running_loop().time() - self._down_since > NEW_SESSION_AFTER * self._session_timeout:
            self._end(client, asyncio.Event())
            self._begin()

    async def _probe(self, client: Any) -> None:
        result = client.exists_async("/")
        await asyncio.wait([self._answer(result)], timeout=PROBE_TIMEOUT)
        if not result.ready() and client is self._client and self._up.is_set():
            log.warning("zookeeper server gives no answer; leaving it", servers=self._hosts)
            self._candidates.leave(client)

    def _end(self, client: Any, ended: asyncio.Event) -> None:
        """Stop a client in a thread of its own, as that waits for a server that may not answer."""

        def end() -> None:
            with suppress(Exception):
                client.stop()
                client.close()
            self._call_in_loop(ended.set)

        threading.Thread(target=end, name="kvcoord-zookeeper-close", daemon=True).start()


class _Candidates:
    """Which servers the next round tries, and in which order. A server is (name, address, port)."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._left: tuple[str, int] | None = None
        self._silent: dict[tuple[str, int], float] = {}  # until when each is left out

    def leave(self, client: Any) -> None:
        """Break the connection; kazoo then looks for another, and comes back to this one last."""
        with suppress(OSError, AttributeError):  # it may be gone already
            connected_to = client._connection._socket.getpeername()
            self._left = (connected_to[0], connected_to[1])
            client._connection._socket.shutdown(socket.SHUT_RDWR)

    def silent(self, address: tuple[str, int]) -> None:
        """It did not answer an attempt."""
        self._silent[address] = self._now() + SILENT_FOR

    def ordered(self, servers: Sequence[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
        """Those to be tried: all, if none has answered."""
        now = self._now()
        self._silent = {address: until for address, until in self._silent.items() if until > now}
        tried = [server for server in servers if (server[1], server[2]) not in self._silent]
        return sorted(tried or servers, key=lambda server: (server[1], server[2]) == self._left)

    def order_in(self, client: Any) -> None:
        """Order this client's attempts."""
        expand = client._connection._expand_client_hosts
        client._connection._expand_client_hosts = lambda: self.ordered(expand())


class _Client(KazooClient):  # type: ignore[misc]
    """kazoo's client, whose session does not end while `fence` is held."""

    def __init__(self, **arguments: Any) -> None:
        self.fence = threading.RLock()
        super().__init__(**arguments)

    def _session_callback(self, state: Any) -> None:
        with self.fence:
            super()._session_callback(state)


class _Handler(SequentialThreadingHandler):  # type: ignore[misc]
    """kazoo's threads, with less patience for a server that is not there."""

    def __init__(self, candidates: _Candidates) -> None:
        self._candidates = candidates
        super().__init__()

    def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["timeout"] = min(kwargs.get("timeout") or CONNECT_TIMEOUT, CONNECT_TIMEOUT)
        try:
            return super().create_connection(*args, **kwargs)
        except TimeoutError:
            self._candidates.silent(kwargs["address"])
            raise


def _quiet_logger() -> logging.Logger:
    """What kazoo says of each attempt is noise; this module logs connections found and lost."""
    logger = logging.getLogger("kvcoord.kazoo")
    logger.setLevel(logging.ERROR)
    return logger
