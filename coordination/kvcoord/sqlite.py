"""Coordination in one SQLite file that local processes share: the embedded default of `make run`.

Two files: `<path>` holds the cells and registrations (WAL, synchronous=FULL: what was acknowledged survives a power-off),
and changes rarely; `<path>-sessions` holds the processes' heartbeats, which change every second and may be lost. A process
whose heartbeat has run out, by the machine's boot clock or by another boot, is gone: any process takes its registration away.
"""

import asyncio
import sqlite3
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import structlog

from kvcommon.clock import Clock, SystemClock
from kvcommon.numbers import ZOOKEEPER_SESSION
from kvcoord import codec
from kvcoord.cells import CALL_TIMEOUT, Cell, CellCoordination, is_news
from kvcoord.contract import CoordinationUnavailableError, Lost, MemberInfo, Won

T = TypeVar("T")

BOOT_ID_FILE: Final = Path("/proc/sys/kernel/random/boot_id")
HEARTBEAT: Final = 1.0
POLL: Final = 0.05
BUSY_TIMEOUT: Final = 1.5  # below the call time-out, so that most waits for a lock end as a plain "not done"
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS cells (
    name TEXT PRIMARY KEY, data BLOB NOT NULL, version INTEGER NOT NULL, birth INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS members (pod TEXT PRIMARY KEY, session TEXT NOT NULL, data BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs (pod TEXT PRIMARY KEY, run TEXT NOT NULL) WITHOUT ROWID;
"""
SESSIONS_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS sessions (
    session TEXT PRIMARY KEY, boot_id TEXT NOT NULL, expires REAL NOT NULL) WITHOUT ROWID;
"""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Session:
    """This process as the others see it."""

    name: str
    boot_id: str
    timeout: float  # seconds


class SqliteFile:
    """The two files, opened; everything here blocks and is called from one thread."""

    def __init__(self, path: Path, session: Session, clock: Clock) -> None:
        """Make the files if they are missing. Raises sqlite3.Error or OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._session = session
        self._clock = clock
        heartbeats = path.with_name(path.name + "-sessions")
        for file in (path, heartbeats):
            file.touch()
        # Before they are opened: one that is replaced meanwhile is lost, too.
        self._inodes = {file: file.stat().st_ino for file in (path, heartbeats)}
        self._db = _connect(path, "FULL", SCHEMA)
        self._heartbeats = _connect(heartbeats, "OFF", SESSIONS_SCHEMA)
        self._data_version = -1

    @property
    def lost(self) -> bool:
        """Whether a file is no longer at its path: deleted, or another is there."""
        try:
            return any(path.stat().st_ino != inode for path, inode in self._inodes.items())
        except FileNotFoundError:
            return True

    def close(self) -> None:
        """End the session and let go of the files."""
        with suppress(sqlite3.Error):
            self._heartbeats.execute("DELETE FROM sessions WHERE session = ?", (self._session.name,))
            self._db.execute("DELETE FROM members WHERE session = ?", (self._session.name,))
        self._db.close()
        self._heartbeats.close()

    def changed(self) -> bool:
        """Whether another connection has changed anything since this was last asked."""
        before = self._data_version
        (self._data_version,) = self._db.execute("PRAGMA data_version").fetchone()
        return before != self._data_version

    def read(self, name: str) -> Cell | None:
        """A cell as it is now."""
        row = self._db.execute("SELECT data, version, birth FROM cells WHERE name = ?", (name,)).fetchone()
        return None if row is None else Cell(*row)

    def create(self, name: str, data: bytes) -> Won | Lost:
        """Make a cell unless it is there."""
        birth = uuid.uuid4().int >> 65
        done = self._db.execute("INSERT OR IGNORE INTO cells VALUES (?, ?, 0, ?)", (name, data, birth))
        return Won(0) if done.rowcount == 1 else Lost()

    def compare_and_set(self, name: str, expected_version: int, data: bytes) -> Won | Lost:
        """Change a cell if it has this version."""
        done = self._db.execute(
            "UPDATE cells SET data = ?, version = version + 1 WHERE name = ? AND version = ?",
            (data, name, expected_version),
        )
        return Won(expected_version + 1) if done.rowcount == 1 else Lost()

    def members(self) -> dict[str, bytes]:
        """Registrations by pod."""
        return dict(self._db.execute("SELECT pod, data FROM members"))

    def register(self, member: MemberInfo, *, first: bool) -> bool:
        """Put the registration in place unless a newer run of the pod has taken over; whether it was done."""
        with _transaction(self._db) as db:
            if first:
                db.execute("INSERT OR REPLACE INTO runs VALUES (?, ?)", (member.pod, member.run))
            else:
                row = db.execute("SELECT run FROM runs WHERE pod = ?", (member.pod,)).fetchone()
                if row is None:  # the file was lost
                    db.execute("INSERT INTO runs VALUES (?, ?)", (member.pod, member.run))
                elif row != (member.run,):
                    return False
            db.execute("DELETE FROM members WHERE session = ? AND pod <> ?", (self._session.name, member.pod))
            db.execute(
                "INSERT OR REPLACE INTO members VALUES (?, ?, ?)",
                (member.pod, self._session.name, codec.encode_member(member)),
            )
        return True

    def is_registered(self, member: MemberInfo) -> bool:
        """Whether this session's registration is in place."""
        row = self._db.execute("SELECT session, data FROM members WHERE pod = ?", (member.pod,)).fetchone()
        return bool(row == (self._session.name, codec.encode_member(member)))

    def heartbeat(self) -> None:
        """Live on for the session's time-out."""
        self._heartbeats.execute(
            "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?)",
            (self._session.name, self._session.boot_id, self._clock.now() + self._session.timeout),
        )

    def bury(self) -> bool:
        """Take away the registrations of sessions that have ended; whether there were any."""
        now = self._clock.now()
        boot = self._session.boot_id
        self._heartbeats.execute("DELETE FROM sessions WHERE boot_id <> ? OR expires < ?", (boot, now))
        living = {name for (name,) in self._heartbeats.execute("SELECT session FROM sessions")}
        registered = {name for (name,) in self._db.execute("SELECT session FROM members")}
        for name in registered - living:
            self._db.execute("DELETE FROM members WHERE session = ?", (name,))
        return bool(registered - living)


class SqliteCoordination(CellCoordination):
    """One process's access to the file."""

    def __init__(
        self,
        path: Path,
        *,
        session_timeout: float = ZOOKEEPER_SESSION,
        call_timeout: float = CALL_TIMEOUT,
        clock: Clock | None = None,
        boot_id: str | None = None,
    ) -> None:
        """Times in seconds; `boot_id` and `clock` are this machine's unless given."""
        self._path = path
        self._clock = clock or SystemClock()
        self._session = Session(uuid.uuid4().hex, boot_id or BOOT_ID_FILE.read_text().strip(), session_timeout)
        self._call_timeout = call_timeout
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kvcoord-sqlite")
        self._file: SqliteFile | None = None
        self._files = 0  # opened so far
        self._member: MemberInfo | None = None
        self._registered_runs: set[str] = set()
        self._wakers: dict[asyncio.Event, None] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._connected = self._closed = False

    async def start(self) -> None:
        self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="kvcoord-sqlite")

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._connected = False
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        self._wake()
        letting_go = asyncio.get_running_loop().run_in_executor(self._thread, self._let_go)
        await asyncio.wait([letting_go], timeout=CALL_TIMEOUT)
        self._thread.shutdown(wait=False)

    @property
    def connected(self) -> bool:
        return self._connected

    @property
    def session(self) -> int:
        return self._files

    async def register_member(self, member: MemberInfo) -> None:
        self._member = member
        if await self._call(lambda file: self._register(file, member)):
            self._wake()

    async def _read(self, cell: str) -> Cell | None:
        return await self._call(lambda file: file.read(cell))

    async def _create(self, cell: str, data: bytes, session: int | None = None) -> Won | Lost:
        return self._told(await self._call(lambda file: file.create(cell, data), session))

    async def _compare_and_set(
        self, cell: str, expected_version: int, data: bytes, session: int | None = None
    ) -> Won | Lost:
        return self._told(await self._call(lambda file: file.compare_and_set(cell, expected_version, data), session))

    async def _read_members(self) -> Mapping[str, bytes]:
        return await self._call(_living_members)

    async def _watch(self, cell: str) -> AsyncGenerator[Cell | None, None]:
        seen: Cell | None = None
        first = True
        async with aclosing(self._readings(lambda file: file.read(cell))) as readings:
            async for now in readings:
                if is_news(seen, now, first=first):
                    seen, first = now, False
                    yield now

    async def _watch_members(self) -> AsyncGenerator[Mapping[str, bytes], None]:
        seen: Mapping[str, bytes] | None = None
        async with aclosing(self._readings(_living_members)) as readings:
            async for now in readings:
                if now != seen:
                    seen = now
                    yield now

    async def _readings(self, read: Callable[[SqliteFile], T]) -> AsyncGenerator[T, None]:
        """What `read` gives, now and after each change of the file."""
        wake = asyncio.Event()
        self._wakers[wake] = None
        try:
            while not self._closed:
                wake.clear()
                try:
                    reading = await self._call(read)
                except CoordinationUnavailableError:
                    await asyncio.sleep(POLL)
                    continue
                yield reading
                if not self._closed:
                    await wake.wait()
        finally:
            del self._wakers[wake]

    def _told(self, outcome: Won | Lost) -> Won | Lost:
        """This process's own changes are no news to its own connection: tell its watches here."""
        if isinstance(outcome, Won):
            self._wake()
        return outcome

    def _wake(self) -> None:
        for wake in list(self._wakers):
            wake.set()

    async def _keep(self) -> None:
        """Look for changes often and keep the session alive every second, for as long as this is open."""
        next_heartbeat = 0.0
        while not self._closed:
            now = self._clock.now()
            beat = now >= next_heartbeat
            if beat:
                next_heartbeat = now + HEARTBEAT
            try:
                if await self._call(self._beat if beat else SqliteFile.changed):
                    self._wake()
            except CoordinationUnavailableError as error:
                if beat:
                    log.warning("coordination unavailable", path=str(self._path), reason=str(error))
            await asyncio.sleep(POLL)

    def _beat(self, file: SqliteFile) -> bool:
        file.heartbeat()
        buried = file.bury()
        member = self._member
        back = member is not None and not file.is_registered(member) and self._register(file, member)
        return file.changed() or buried or back

    def _register(self, file: SqliteFile, member: MemberInfo) -> bool:
        first = member.run not in self._registered_runs
        file.heartbeat()
        done = file.register(member, first=first)
        self._registered_runs.add(member.run)
        return done

    async def _call(self, do: Callable[[SqliteFile], T], session: int | None = None) -> T:
        """Run in the file's thread. What takes longer than the time-out may yet be done."""
        if self._keeper is None:
            raise RuntimeError("start() the coordination before using it")
        if self._closed:
            raise CoordinationUnavailableError(f"coordination in {self._path} is closed")
        call = asyncio.get_running_loop().run_in_executor(self._thread, self._run, do, session)
        call.add_done_callback(_forget)
        try:
            async with asyncio.timeout(self._call_timeout):
                result = await asyncio.shield(call)
        except TimeoutError:
            self._connected = False
            raise CoordinationUnavailableError(f"{self._path} gave no answer within {self._call_timeout} s") from None
        except (sqlite3.Error, OSError) as error:
            self._connected = False
            raise CoordinationUnavailableError(f"can't use {self._path}: {error}") from error
        self._connected = not self._closed
        return result

    def _run(self, do: Callable[[SqliteFile], T], session: int | None) -> T:
        if self._file is not None and self._file.lost:
            log.error("coordination's file is gone; beginning another", path=str(self._path))
            file, self._file = self._file, None
            file.close()
        if self._file is None:
            self._file = SqliteFile(self._path, self._session, self._clock)
            self._files += 1
        if session not in (None, self._files):
            raise CoordinationUnavailableError(f"{self._path} is another file now")
        return do(self._file)

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()


def _living_members(file: SqliteFile) -> dict[str, bytes]:
    """What a member says of itself, without those whose session has ended."""
    file.bury()
    return file.members()


def _connect(path: Path, synchronous: str, schema: str) -> sqlite3.Connection:
    """A connection, after waiting for other processes that are making the same file.

    SQLite's own busy time-out does not hold while the journal mode changes (https://sqlite.org/wal.html#busy).
    """
    deadline = time.monotonic() + BUSY_TIMEOUT
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            connection.executescript(schema)
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                connection.close()
                raise
            time.sleep(0.01)
        except sqlite3.Error:
            connection.close()
            raise
        else:
            return connection


def _forget(call: "asyncio.Future[T]") -> None:
    """An answer that nobody waits for any more may be an exception: that is no news."""
    if not call.cancelled():
        call.exception()


class _transaction:  # noqa: N801 - reads as a statement
    """BEGIN IMMEDIATE ... COMMIT, or ROLLBACK on an exception."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> sqlite3.Connection:
        self._db.execute("BEGIN IMMEDIATE")
        return self._db

    def __exit__(self, kind: object, *_: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")
