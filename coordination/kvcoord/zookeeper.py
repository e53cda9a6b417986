"""Coordination in ZooKeeper, below one path of an ensemble.

A node's own version is the version of its value: lasting nodes are never deleted, so it only grows. Should an ensemble
have lost its data, its nodes are born again, which a watch shows (see `kvcoord.cells.is_news`).

Registrations are ephemeral nodes `members/<pod>`. The lasting node `runs/<pod>` names the run that registered last; every
registration is a transaction that checks it, so a process that was cut off can't take its place back from a newer run.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Final, TypeVar

import structlog

from kvcommon.numbers import ZOOKEEPER_SESSION
from kvcoord import codec
from kvcoord.cells import (
    CALL_TIMEOUT,
    MEMBERS,
    PARTITIONS,
    RUNS,
    Cell,
    CellCoordination,
    is_news,
    run_cell,
)
from kvcoord.contract import CoordinationUnavailableError, Lost, MemberInfo, Won
from kvcoord.kazoo_client import AsyncKazoo, Created, Node, Replaced

T = TypeVar("T")

FOLDERS: Final = (PARTITIONS, MEMBERS, RUNS)
TRY_AGAIN: Final = 0.3  # seconds after a failure of what goes on by itself

log = structlog.get_logger()


class ZookeeperCoordination(CellCoordination):
    """One process's session, or one after another, with the cluster's data at `path`."""

    def __init__(
        self,
        servers: Sequence[tuple[str, int]],
        path: str,
        *,
        session_timeout: float = ZOOKEEPER_SESSION,
        call_timeout: float = CALL_TIMEOUT,
    ) -> None:
        """`servers` are (host, port), `path` is absolute; times in seconds."""
        self._path = path.rstrip("/")
        self._zk = AsyncKazoo(servers, session_timeout=session_timeout, call_timeout=call_timeout)
        self._zk.on_connected = self._on_connected
        self._call_timeout = call_timeout
        self._wakers: dict[asyncio.Event, None] = {}
        self._registration = _Registration(self._zk, self._at, self._in_place)
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False

    async def start(self) -> None:
        self._zk.start()
        self._keeper = asyncio.get_running_loop().create_task(self._registration.keep(), name="kvcoord-registration")

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._registration.stop()
        self._wake()
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        await self._zk.close()

    @property
    def connected(self) -> bool:
        return self._zk.connected

    @property
    def session(self) -> int:
        return self._zk.session_id

    async def register_member(self, member: MemberInfo) -> None:
        done = self._registration.want(member)
        try:
            async with asyncio.timeout(self._call_timeout):
                await done.wait()
        except TimeoutError:
            raise CoordinationUnavailableError(
                f"{member.pod} is not registered in ZooKeeper after {self._call_timeout} s; it goes on trying"
            ) from None

    async def _read(self, cell: str) -> Cell | None:
        return _cell(await self._zk.get(self._at(cell), sync=True))

    async def _create(self, cell: str, data: bytes, session: int | None = None) -> Won | Lost:
        created = await self._in_place(lambda: self._zk.create(self._at(cell), data, session=session))
        return Won(0) if created is Created.DONE else Lost()

    async def _compare_and_set(
        self, cell: str, expected_version: int, data: bytes, session: int | None = None
    ) -> Won | Lost:
        version = await self._zk.set(self._at(cell), data, expected_version, session=session)
        return Lost() if version is None else Won(version)

    async def _read_members(self) -> Mapping[str, bytes]:
        return await self._members(await self._zk.children(self._at(MEMBERS), sync=True) or [])

    async def _watch(self, cell: str) -> AsyncGenerator[Cell | None, None]:
        path = self._at(cell)

        async def read(wake: Callable[[], None], sync: bool) -> Cell | None:
            if not await self._zk.exists(path, wake, sync=sync):
                return None
            return _cell(await self._zk.get(path, sync=False))

        seen: Cell | None = None
        first = True
        async with aclosing(self._readings(read)) as readings:
            async for now in readings:
                if is_news(seen, now, first=first):
                    seen, first = now, False
                    yield now

    async def _watch_members(self) -> AsyncGenerator[Mapping[str, bytes], None]:
        async def read(wake: Callable[[], None], sync: bool) -> Mapping[str, bytes]:
            path = self._at(MEMBERS)
            names = await self._zk.children(path, wake, sync=sync)
            while names is None:
                await self._make_folders()
                names = await self._zk.children(path, wake)
            return await self._members(names)

        seen: Mapping[str, bytes] | None = None
        async with aclosing(self._readings(read)) as readings:
            async for now in readings:
                if now != seen:
                    seen = now
                    yield now

    async def _members(self, names: Sequence[str]) -> dict[str, bytes]:
        nodes = await asyncio.gather(*(self._zk.get(self._at(f"{MEMBERS}/{name}"), sync=False) for name in names))
        return {name: node.data for name, node in zip(names, nodes, strict=True) if node is not None}

    async def _readings(self, read: Callable[[Callable[[], None], bool], Awaitable[T]]) -> AsyncGenerator[T, None]:
        """What `read` gives, now, after each event it was woken for, and, synced, after each new connection.

        A watch is one-shot and set before its value is read, so no change falls between; the server's order within one
        connection, and the sync after a new one, keep readings from going back.
        """
        wake = asyncio.Event()
        self._wakers[wake] = None
        synced_at = 0
        try:
            while not self._closed:
                wake.clear()
                connection = self._zk.connections
                try:
                    reading = await read(wake.set, connection != synced_at)
                except CoordinationUnavailableError:
                    await asyncio.sleep(TRY_AGAIN)
                    continue
                synced_at = connection
                yield reading
                if not self._closed:
                    await wake.wait()
        finally:
            del self._wakers[wake]

    def _on_connected(self) -> None:
        self._registration.check()
        self._wake()

    def _wake(self) -> None:
        for wake in list(self._wakers):
            wake.set()

    def _at(self, cell: str) -> str:
        return f"{self._path}/{cell}"

    async def _in_place(self, create: Callable[[], Awaitable[Created]]) -> Created:
        """A creation, after making the folders if they are missing."""
        created = await create()
        if created is Created.NO_PARENT:
            await self._make_folders()
            created = await create()
        return created

    async def _make_folders(self) -> None:
        steps = self._path.strip("/").split("/")
        for end in range(1, len(steps) + 1):
            await self._zk.create("/" + "/".join(steps[:end]), b"")
        for folder in FOLDERS:
            await self._zk.create(self._at(folder), b"")


class _Registration:
    """Keeps what this process wants to say of itself in place, over lost connections and sessions."""

    def __init__(
        self,
        zk: AsyncKazoo,
        at: Callable[[str], str],
        in_place: Callable[[Callable[[], Awaitable[Created]]], Awaitable[Created]],
    ) -> None:
        self._zk = zk
        self._at = at
        self._in_place = in_place
        self._member: MemberInfo | None = None
        self._done = asyncio.Event()
        self._wake = asyncio.Event()
        self._claims: dict[str, int] = {}  # by run: the version of runs/<pod> at which it is the newest
        self._stopped = False

    def want(self, member: MemberInfo) -> asyncio.Event:
        """Register this from now on; the event is set when it is first done."""
        self._member = member
        self._done = asyncio.Event()
        self._wake.set()
        return self._done

    def check(self) -> None:
        """Look whether it is still in place."""
        self._wake.set()

    def stop(self) -> None:
        """Want nothing more."""
        self._stopped = True
        self._wake.set()

    async def keep(self) -> None:
        """Runs until stopped."""
        while not self._stopped:
            await self._wake.wait()
            self._wake.clear()
            await self._zk.until_connected()
            member, done = self._member, self._done
            if member is None:
                continue
            try:
                if not await self._put(member):
                    log.warning("a newer run of this pod is registered; standing back", pod=member.pod, run=member.run)
                    self._member = None
                done.set()
            except CoordinationUnavailableError as error:
                log.info("registration waits", pod=member.pod, reason=str(error))
                await asyncio.sleep(TRY_AGAIN)
                self._wake.set()
            except Exception:
                log.exception("registration failed", pod=member.pod)
                await asyncio.sleep(TRY_AGAIN)
                self._wake.set()

    async def _put(self, member: MemberInfo) -> bool:
        """Whether the registration is in place and watched; False if a newer run has taken over."""
        path, data = self._at(f"{MEMBERS}/{member.pod}"), codec.encode_member(member)
        while True:
            version = await self._claim(member)
            if version is None:
                return False
            await self._zk.exists(path, self._wake.set)
            node = await self._zk.get(path, sync=False)
            if node is not None and node.owner == self._zk.session_id and node.data == data:
                return True
            outcome = await self._zk.put_ephemeral(
                path, data, replace=node is not None, guard=self._at(run_cell(member.pod)), version=version
            )
            if outcome is Replaced.DONE:
                log.info("registered", pod=member.pod, run=member.run)

    async def _claim(self, member: MemberInfo) -> int | None:
        """The version of runs/<pod> at which it names this run; None if it names a newer one."""
        path, data = self._at(run_cell(member.pod)), codec.encode_run(member.run)
        while True:
            node = await self._zk.get(path, sync=True)
            if node is None:
                if await self._in_place(lambda: self._zk.create(path, data)) is Created.DONE:
                    self._claims[member.run] = 0
            elif codec.decode_run(node.data) == member.run:
                self._claims[member.run] = node.version
                return node.version
            elif member.run in self._claims:
                return None
            else:
                version = await self._zk.set(path, data, node.version)
                if version is not None:
                    self._claims[member.run] = version


def _cell(node: Node | None) -> Cell | None:
    return None if node is None else Cell(node.data, node.version, node.born)
