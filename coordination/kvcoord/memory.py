"""Coordination in memory: for tests and the simulation, with every fault a network and a service can have.

One `MemoryStore` is the service; each process has its own `MemoryCoordination` of it. No threads, no wall clock: all
waiting is the running event loop's, which may be one of virtual time.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from kvcommon.numbers import ZOOKEEPER_SESSION
from kvcoord import codec
from kvcoord.cells import CALL_TIMEOUT, Cell, CellCoordination, is_news
from kvcoord.contract import CoordinationUnavailableError, Lost, MemberInfo, Won

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """One call on its way to the store. `operation` is read, create, set, register or watch; `target` is the cell."""

    session: str
    operation: str
    target: str

    @property
    def writes(self) -> bool:
        """Whether it changes anything when it gets there."""
        return self.operation in ("create", "set", "register")


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a call: done `delay` seconds from now if `applied`; answered `answer_delay` later if `answered`.

    The caller waits for `patience` seconds and then gets CoordinationUnavailableError; what is under way still happens.
    So `applied=True, answered=False` is a "maybe" that was done, with a `delay` above `patience` one that is yet to be
    done, and `applied=False, answered=False` one that is lost. A watch looks only at `delay`.
    """

    delay: float = 0.0
    answer_delay: float = 0.0
    applied: bool = True
    answered: bool = True
    patience: float = CALL_TIMEOUT


FINE: Final = Fate()
UNREACHED: Final = Fate(applied=False, answered=False)
DONE_UNANSWERED: Final = Fate(answered=False)

REGISTER_AGAIN: Final = 0.5  # seconds after a registration without an answer

Hook = Callable[[Call], Fate]


@dataclass(frozen=True, slots=True)
class _Member:
    session: "MemoryCoordination"
    data: bytes


class MemoryStore:
    """The service. `hook` decides the fate of every call; the default lets all through at once."""

    def __init__(
        self,
        *,
        session_timeout: float = ZOOKEEPER_SESSION,
        hook: Hook = lambda _: FINE,
        context: Context | None = None,
    ) -> None:
        """`session_timeout` in seconds: how long a session that is away keeps its registration.

        `context`: what the service does later runs in it, not in that of the caller, who may be dead by then.
        """
        self.session_timeout = session_timeout
        self.context = context
        self.hook = hook
        self._cells: dict[str, Cell] = {}
        self._members: dict[str, _Member] = {}
        self._runs: dict[str, str] = {}
        self._sessions: list[MemoryCoordination] = []
        self._births = 0

    def session(self, name: str = "") -> "MemoryCoordination":
        """A process's access to this store; not started yet."""
        session = MemoryCoordination(self, name or f"session-{len(self._sessions)}")
        self._sessions.append(session)
        return session

    @property
    def sessions(self) -> tuple["MemoryCoordination", ...]:
        """All sessions that are not closed."""
        return tuple(self._sessions)

    def set_away(self, away: bool) -> None:
        """The whole service goes away, or comes back, for every session."""
        for session in self.sessions:
            session.away = away

    def cells(self) -> Mapping[str, Cell]:
        """What is stored, for a checker to look at."""
        return dict(self._cells)

    def put_back(self, cells: Mapping[str, Cell]) -> None:
        """Replace all that is stored, as a restore of an old copy does; {} is the loss of everything. All sessions end."""
        self._cells = dict(cells)
        self._tell()
        for session in self.sessions:
            session.expire()

    def get(self, cell: str) -> Cell | None:
        """A cell as it is now."""
        return self._cells.get(cell)

    def create(self, cell: str, data: bytes) -> Won | Lost:
        """Make a cell unless it is there."""
        if cell in self._cells:
            return Lost()
        self._births += 1
        self._cells[cell] = Cell(data, 0, self._births)
        self._tell()
        return Won(0)

    def compare_and_set(self, cell: str, expected_version: int, data: bytes) -> Won | Lost:
        """Change a cell if it has this version."""
        now = self._cells.get(cell)
        if now is None or now.version != expected_version:
            return Lost()
        self._cells[cell] = Cell(data, now.version + 1, now.birth)
        self._tell()
        return Won(now.version + 1)

    def members(self) -> dict[str, bytes]:
        """Registrations by pod."""
        return {pod: member.data for pod, member in self._members.items()}

    def register(self, session: "MemoryCoordination", member: MemberInfo, *, first: bool) -> None:
        """Put a registration in place; an older run of the pod does not take it back."""
        if first:
            self._runs[member.pod] = member.run
        if self._runs.get(member.pod) == member.run:
            self._members[member.pod] = _Member(session, codec.encode_member(member))
            self._tell()

    def end(self, session: "MemoryCoordination") -> None:
        """A session's end: its registration goes."""
        left = {pod: member for pod, member in self._members.items() if member.session is not session}
        if len(left) != len(self._members):
            self._members = left
            self._tell()

    def forget(self, session: "MemoryCoordination") -> None:
        """A session will not come back."""
        self.end(session)
        if session in self._sessions:
            self._sessions.remove(session)

    def _tell(self) -> None:
        for session in self._sessions:
            session._wake()


class MemoryCoordination(CellCoordination):
    """One process's access to a `MemoryStore`, made by `MemoryStore.session`.

    Faults: `away` cuts this process off (its registration goes after the session time-out), `expire` ends its session
    at once, `crash` is the process's death; the store's `hook` delays, loses and doubts single calls.
    """

    def __init__(self, store: MemoryStore, name: str) -> None:
        self.name = name
        self._store = store
        self._away = False
        self._started = self._closed = False
        self._member: MemberInfo | None = None
        self._registered_runs: set[str] = set()
        self._expiry: asyncio.TimerHandle | None = None
        self._expired = 0  # sessions before this one
        self._wakers: dict[asyncio.Event, None] = {}  # ordered, so that a simulation repeats itself

    async def start(self) -> None:
        self._started = True

    async def close(self) -> None:
        self._end(forget=not self._away)

    def crash(self) -> None:
        """The process is gone without a word: its registration stays for the session time-out."""
        self._end(forget=False)

    def _end(self, *, forget: bool) -> None:
        if self._closed:
            return
        self._closed = True
        self._expired += 1
        self._member = None
        self._cancel_expiry()
        if forget or not self._started:
            self._store.forget(self)
        else:
            asyncio.get_running_loop().call_later(self._store.session_timeout, self._store.forget, self)
        self._wake()

    @property
    def connected(self) -> bool:
        return self._started and not self._away and not self._closed

    @property
    def session(self) -> int:
        return self._expired

    @property
    def away(self) -> bool:
        """Whether this process is cut off from the store; settable, from within the event loop."""
        return self._away

    @away.setter
    def away(self, away: bool) -> None:
        if away == self._away or self._closed:
            return
        self._away = away
        self._cancel_expiry()
        if away:
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_later(self._store.session_timeout, self._session_over)
        else:
            self._register_again()
            self._wake()

    def expire(self) -> None:
        """End the session at once; a connected one registers again, as the contract has it."""
        self._session_over()
        if not self._away:
            self._register_again()

    def _session_over(self) -> None:
        self._expired += 1
        self._store.end(self)

    def _register_again(self) -> None:
        member = self._member
        if member is not None and self._store.members().get(member.pod) != codec.encode_member(member):
            first = member.run not in self._registered_runs
            self._registered_runs.add(member.run)
            self._store.register(self, member, first=first)

    def _cancel_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    async def register_member(self, member: MemberInfo) -> None:
        previous, self._member = self._member, member
        if previous is not None and previous.pod != member.pod:
            self._store.end(self)
        try:
            await self._call("register", f"members/{member.pod}", lambda: self._register(member))
        except CoordinationUnavailableError:
            asyncio.get_running_loop().call_later(REGISTER_AGAIN, self._retry_register)
            raise

    def _retry_register(self) -> None:
        if self.connected:
            self._register_again()

    def _register(self, member: MemberInfo) -> None:
        if self._closed or self._member != member:
            return
        first = member.run not in self._registered_runs
        self._registered_runs.add(member.run)
        self._store.register(self, member, first=first)

    async def _read(self, cell: str) -> Cell | None:
        return await self._call("read", cell, lambda: self._store.get(cell))

    async def _create(self, cell: str, data: bytes, session: int | None = None) -> Won | Lost:
        return await self._call("create", cell, lambda: self._store.create(cell, data), session)

    async def _compare_and_set(
        self, cell: str, expected_version: int, data: bytes, session: int | None = None
    ) -> Won | Lost:
        change = partial(self._store.compare_and_set, cell, expected_version, data)
        return await self._call("set", cell, change, session)

    async def _read_members(self) -> Mapping[str, bytes]:
        return await self._call("read", "members", self._store.members)

    async def _watch(self, cell: str) -> AsyncGenerator[Cell | None, None]:
        seen: Cell | None = None
        first = True
        async with aclosing(self._readings(cell, lambda: self._store.get(cell))) as readings:
            async for now in readings:
                if is_news(seen, now, first=first):
                    seen, first = now, False
                    yield now

    async def _watch_members(self) -> AsyncGenerator[Mapping[str, bytes], None]:
        seen: Mapping[str, bytes] | None = None
        async with aclosing(self._readings("members", self._store.members)) as readings:
            async for now in readings:
                if now != seen:
                    seen = now
                    yield now

    async def _readings(self, target: str, read: Callable[[], T]) -> AsyncGenerator[T, None]:
        """What `read` gives, now and after each change, as long as the session is not away."""
        self._check_started()
        wake = asyncio.Event()
        self._wakers[wake] = None
        try:
            while not self._closed:
                wake.clear()
                if not self._away:
                    delay = self._store.hook(Call(self.name, "watch", target)).delay
                    if delay > 0:
                        await asyncio.sleep(delay)
                    if self.connected:
                        yield read()
                if not self._closed:
                    await wake.wait()
        finally:
            del self._wakers[wake]

    def _wake(self) -> None:
        for wake in list(self._wakers):
            wake.set()

    def _check_started(self) -> None:
        if not self._started:
            raise RuntimeError("start() the coordination before using it")

    async def _call(self, operation: str, target: str, do: Callable[[], T], session: int | None = None) -> T:
        self._check_started()
        if not self.connected:
            raise CoordinationUnavailableError(f"{self.name}: can't {operation} {target}: cut off from the store")
        fate = self._store.hook(Call(self.name, operation, target))
        if fate == FINE:
            if not self._is_in(session):
                raise CoordinationUnavailableError(f"{self.name}: the session is another now")
            return do()
        return await self._fated(fate, f"{operation} {target}", do, session)

    def _is_in(self, session: int | None) -> bool:
        return session in (None, self._expired)

    def _fated(self, fate: Fate, what: str, do: Callable[[], T], session: int | None) -> Awaitable[T]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def answer_with(result: T) -> None:
            if not answer.done():
                answer.set_result(result)

        def apply() -> None:
            if not self._is_in(session):
                return  # and nobody answers
            result = do()
            if fate.answered:
                loop.call_later(fate.answer_delay, answer_with, result)

        def give_up() -> None:
            if not answer.done():
                answer.set_exception(
                    CoordinationUnavailableError(f"{self.name}: no answer to {what} within {fate.patience} s")
                )

        if fate.applied:
            loop.call_later(fate.delay, apply, context=self._store.context)
        loop.call_later(fate.patience, give_up)
        return answer
