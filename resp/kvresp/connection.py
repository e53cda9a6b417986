"""A client's connection and the port that makes them: commands in, replies out in the same order, all of it bounded.

A door derives from `Door` and says what a command does; everything about bytes, order and back-pressure is here.
"""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol, Self, cast

import structlog

from kvcommon.errors import KVClusterError
from kvresp import errors
from kvresp.counts import Counts
from kvresp.reader import CommandReader, split_one
from kvresp.replies import error
from kvresp.session import Session

log = structlog.get_logger()

MAX_CLIENTS: Final = 10_000
MAX_WAITING_BYTES: Final = 4 << 20
"""Of commands of one connection whose replies are not there yet; beyond it no more are begun."""
HIGH_WATER: Final = 256 << 10
"""Bytes of replies that a client may leave unread before its commands wait."""
READ_COST: Final = 32 << 10
"""What a read counts for in MAX_WAITING_BYTES: how long its reply will be is not known yet."""
AT_ONCE: Final = 256
"""Connections whose commands are done together, at most."""


class Cell(Protocol):
    """A place among the replies: of a command that is under way while `reply` is None. `cost` in bytes."""

    reply: bytes | None
    cost: int


class Ready:
    """A reply that is there, behind some that are not."""

    __slots__ = ("cost", "reply")

    def __init__(self, reply: bytes) -> None:
        self.reply: bytes | None = reply
        self.cost = len(reply)


class Pending:
    """A reply that somebody will `fill`, once."""

    __slots__ = ("_connection", "cost", "reply")

    def __init__(self, connection: "Connection", cost: int = READ_COST) -> None:
        self._connection, self.cost = connection, cost
        self.reply: bytes | None = None

    def fill(self, reply: bytes) -> None:
        """The reply is there."""
        self.reply = reply
        self._connection.completed()


class _Later:
    """What `Door.execute` returns for a command that must not begin before those in front of it are answered."""


LATER: Final = _Later()


class Connection(asyncio.Protocol):
    """One client. Doors look at `session`, `waiting` and `transport`, and call `defer` and `completed`."""

    __slots__ = (
        "_backlog",
        "_dirty",
        "_door",
        "_eof",
        "_full",
        "_reader",
        "_reading",
        "_running",
        "_unread",
        "_waiting_bytes",
        "now",
        "session",
        "transport",
        "waiting",
    )

    def __init__(self, door: "Door") -> None:
        self._door = door
        self._reader = CommandReader()
        self._unread = b""  # what came in this turn of the loop
        self._backlog: Sequence[list[bytes]] = ()  # parsed, not begun
        self._waiting_bytes = 0
        self._full = self._dirty = self._running = False
        self._eof = False  # the client sends no more
        self._reading = True
        self.transport: asyncio.Transport | None = None
        """None once the client is gone."""
        self.waiting: deque[Cell] = deque()
        """Replies to come, in order; empty: what is replied now goes out now."""
        self.session: Session
        self.now = 0.0
        """The door's clock, read after the commands were that are being done."""

    # --- asyncio's side ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):  # it may be gone already
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        peer, local = (self.transport.get_extra_info(n) for n in ("peername", "sockname"))
        session = self._door.opened(self, _address(peer), _address(local))
        if session is None:
            self.transport.write(error(errors.TOO_MANY_CLIENTS))
            self.transport.close()
            self.transport = None
        else:
            self.session = session

    def data_received(self, data: bytes) -> None:
        """Kept until the door has its turn, when what other connections sent is there, too."""
        if self._unread:
            self._unread += data
        else:
            self._unread = data
            self._door.arrived(self)

    @classmethod
    def take_all(cls, arrived: Sequence[Self], now: float) -> tuple[list[Self], list[list[bytes]]]:
        """The connections to which one short command came, with nothing in its way, and these commands; the others `take`."""
        connections: list[Self] = []
        commands: list[list[bytes]] = []
        for one in arrived:
            command = None
            if (
                one.transport is not None
                and one._reading
                and one._reader.exact is None
                and not (one.waiting or one._full or one._backlog or one._eof)
            ):
                command = split_one(one._unread)
            if command is None:
                one.take(now)
                continue
            one._unread = b""
            session = one.session
            session.active = one.now = now
            session.last = command[0]
            connections.append(one)
            commands.append(command)
        return connections, commands

    def take(self, now: float) -> None:
        """Do what arrived, or keep it for when it can be done. `now` was read after it was."""
        data, self._unread = self._unread, b""
        if self.transport is None:
            return
        commands = self._reader.feed(data)
        session = self.session
        session.active = self.now = now
        if commands:
            session.last = commands[-1][0]
        if self._backlog:
            self._backlog = [*self._backlog, *commands]
        else:
            self._run(commands)

    def do(self, command: list[bytes]) -> None:
        """Do a command of `take_all`."""
        self._run((command,))

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._go_on()

    def eof_received(self) -> bool:
        """The client sends no more: what it has sent is done and answered, then the connection ends."""
        self._eof = True
        return self.transport is not None and bool(self.waiting or self._backlog or self._unread)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        if self.transport is not None:
            self.transport = None
            self._door.closed(self)

    # --- the door's side ---------------------------------------------------------------------------------------------

    def defer(self, cell: Cell) -> None:
        """The command's reply will be in the cell; call `completed` when it is."""
        self.waiting.append(cell)
        self._waiting_bytes += cell.cost

    def replace(self, cell: Cell, by: Cell) -> None:
        """A waiting cell that connections share gives way to this one's own, of the same cost."""
        by.cost = cell.cost
        for at, waiting in enumerate(self.waiting):
            if waiting is cell:
                self.waiting[at] = by

    def grown(self, by: int) -> None:
        """A waiting cell costs that many bytes more."""
        self._waiting_bytes += by

    def completed(self) -> None:
        """A waiting cell has its reply: it goes out now if it is the only one, else at the end of this turn of the loop."""
        transport, waiting = self.transport, self.waiting
        if self._dirty or transport is None:
            return
        if len(waiting) == 1 and self._reading and not (self._running or self._eof):  # nothing waits for it
            reply = waiting[0].reply
            if reply is not None:
                waiting.clear()
                self._waiting_bytes = 0
                transport.write(reply)
        else:
            self._dirty = True
            self._door.schedule(self)

    def flush(self) -> None:
        """Send the replies that are in order, and go on with commands that waited for that."""
        self._dirty = False
        waiting, out = self.waiting, []
        while waiting and (reply := waiting[0].reply) is not None:
            out.append(reply)
            self._waiting_bytes -= waiting.popleft().cost
        if not waiting:
            self._waiting_bytes = 0
        if out and self.transport is not None:
            self.transport.write(b"".join(out))
        self._go_on()

    def abort(self) -> None:
        """End the connection now."""
        if self.transport is not None:
            self.transport.abort()

    # --- running -----------------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Run what waited, if nothing holds it; then read again."""
        if self.transport is None or self._running:
            return
        if self._backlog:
            self.now = self._door.now()
            commands, self._backlog = self._backlog, ()
            self._run(commands)
        else:
            self._settle_input()

    def _run(self, commands: Sequence[list[bytes]]) -> None:
        """Do commands in order, until one must wait: those from there on are kept, and no more are read."""
        execute, waiting, transport = self._door.execute, self.waiting, self.transport
        assert transport is not None
        out: list[bytes] = []
        size = 0
        self._running = True
        for at, args in enumerate(commands):
            if self._full or self._waiting_bytes >= MAX_WAITING_BYTES:
                self._backlog = commands[at:]
                break
            reply = execute(self, args)
            if type(reply) is bytes:
                if waiting:
                    self.defer(Ready(reply))
                else:
                    out.append(reply)
                    size += len(reply)
                    if size >= HIGH_WATER:
                        transport.write(b"".join(out))  # this may say at once that the client is behind: `_full`
                        out.clear()
                        size = 0
                if self.session.ending:
                    break
            elif reply is LATER:
                self._backlog = commands[at:]
                break
        self._running = False
        if out:
            transport.write(out[0] if len(out) == 1 else b"".join(out))
        if self._backlog or self._reader.error or self.session.ending or self._eof or not self._reading:
            self._settle_input()

    def _settle_input(self) -> None:
        """Stop or go on reading; end the connection when its last reply is out."""
        transport = self.transport
        if transport is None:
            return
        over = self.session.ending or ((self._reader.error or self._eof) and not self._backlog)
        if over and not self.waiting:
            if self._reader.error and not self.session.ending:
                transport.write(error(f"ERR {self._reader.error}"))
            transport.close()
            return
        want = not (self._backlog or over)
        if want != self._reading:
            self._reading = want
            if want:
                transport.resume_reading()
            else:
                transport.pause_reading()


class Door:
    """The port: who is connected, and whose replies are to be sent. A door says what a command does in `execute`."""

    def __init__(self, now: Callable[[], float], *, max_clients: int = MAX_CLIENTS) -> None:
        """`now`: seconds of a clock, for the connections' ages and what must be read after their commands were."""
        self.now = now
        self.max_clients = max_clients
        self.counts = Counts()
        self.connections: set[Connection] = set()
        self.connected = 0
        """How many connections there have been."""
        self.refused = 0
        """How many were refused because there were too many."""
        self._arrived: list[Connection] = []
        self._dirty: list[Connection] = []
        self._server: asyncio.Server | None = None
        self._all_gone = asyncio.Event()

    def execute(self, connection: Connection, args: list[bytes]) -> bytes | object | None:
        """Do a command: its reply's bytes, None if the reply is deferred, LATER to be asked again with nothing waiting.

        LATER only while `connection.waiting` is not empty.
        """
        raise NotImplementedError

    def execute_many(self, connections: Sequence[Connection], commands: Sequence[list[bytes]]) -> None:
        """Do a command of each connection, which has nothing under way. All were read at the connections' `now`."""
        for connection, command in zip(connections, commands, strict=True):
            connection.do(command)

    # --- the port ----------------------------------------------------------------------------------------------------

    async def start(self, host: str, port: int) -> int:
        """Serve; returns the port. Raises KVClusterError when it can't be had."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: Connection(self), host, port, backlog=512)
        except OSError as e:
            msg = f"can't serve the Redis protocol on {host}:{port}: {e.strerror or e}; set another --redis-port"
            raise KVClusterError(msg) from e
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.abort()
        if self.connections:
            await self._all_gone.wait()

    # --- connections -------------------------------------------------------------------------------------------------

    def opened(self, connection: Connection, address: str, local_address: str) -> Session | None:
        """A client is there; None: it can't stay."""
        if len(self.connections) >= self.max_clients:
            self.refused += 1
            return None
        self.connected += 1
        self.connections.add(connection)
        self._all_gone.clear()
        now = self.now()
        return Session(self.connected, address, local_address, now, now)

    def closed(self, connection: Connection) -> None:
        """A client is gone."""
        self.connections.discard(connection)
        if not self.connections:
            self._all_gone.set()

    @property
    def clients(self) -> int:
        """How many are connected now."""
        return len(self.connections)

    def sessions(self) -> Iterable[Session]:
        """All connections' state, oldest first."""
        return sorted((c.session for c in self.connections), key=lambda s: s.id)

    def arrived(self, connection: Connection) -> None:
        """It has sent something: done at the end of this turn of the loop, with what all others have sent by then.

        One pass over all is a third faster than a pass through the kernel and all of this for each (docs/benchmarks.md).
        """
        if not self._arrived:
            asyncio.get_running_loop().call_soon(self.turn)
        self._arrived.append(connection)

    def turn(self) -> None:
        """Do what has arrived."""
        arrived, self._arrived = self._arrived, []
        now = self.now()
        for at in range(0, len(arrived), AT_ONCE):
            some = arrived[at : at + AT_ONCE]
            try:
                if len(some) == 1:
                    some[0].take(now)
                else:
                    self._take(some, now)
            except Exception:
                log.exception("commands failed: the connections that sent them end", connections=len(some))
                for connection in some:
                    connection.abort()

    def _take(self, arrived: Sequence[Connection], now: float) -> None:
        connections, commands = Connection.take_all(arrived, now)
        if commands:
            self.execute_many(connections, commands)

    def schedule(self, connection: Connection) -> None:
        """Flush this connection at the end of this turn of the loop, with all others."""
        if not self._dirty:
            asyncio.get_running_loop().call_soon(self._flush)
        self._dirty.append(connection)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection.flush()


def _address(name: object) -> str:
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) and len(name) >= 2 else str(name or "")
