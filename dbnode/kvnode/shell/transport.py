"""Connections between replicas: frames over TCP, by asyncio protocols."""

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol, cast

import structlog

from kvcommon.errors import KVClusterError
from kvnode.shell.wire import MAX_FIRST_FRAME_BYTES, MAX_FRAME_BYTES, Decoder, Spoken, WireError, encode_parts

log = structlog.get_logger()

DIAL_TIMEOUT = 1.0
_SMALL = 16 << 10  # bytes that are copied sooner than they are written in parts


class Listener(Protocol):
    """Who is told of what happens on connections."""

    def accepted(self, connection: "Connection") -> None:
        """A replica dialed us."""
        ...

    def received(self, connection: "Connection", message: Spoken) -> None:
        """A message came."""
        ...

    def disconnected(self, connection: "Connection") -> None:
        """The connection ended, by whichever side."""
        ...


class Connection(asyncio.Protocol):
    """One connection; `number` is unique in this process."""

    def __init__(self, number: int, listener: Listener, *, dialed: bool) -> None:
        self.number = number
        self._listener = listener
        self._dialed = dialed
        self._decoder = Decoder(MAX_FRAME_BYTES if dialed else MAX_FIRST_FRAME_BYTES)
        self._transport: asyncio.Transport | None = None
        self._heard = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self._dialed:
            self._listener.accepted(self)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._decoder.feed(data):
                self._heard = True
                if self._transport is None:
                    return
                self._listener.received(self, message)
        except WireError as e:
            log.warning("replication connection ended: bad frame", peer=self.peer, error=str(e))
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        self._transport = None
        self._listener.disconnected(self)

    @property
    def peer(self) -> str:
        """The other end's address."""
        name = self._transport.get_extra_info("peername") if self._transport else None
        return f"{name[0]}:{name[1]}" if name else "closed"

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._transport is None

    def send(self, message: Spoken) -> None:
        """Send, or nothing when the connection is gone."""
        if self._transport is not None and not self._transport.is_closing():
            parts = encode_parts(message)
            if sum(map(len, parts)) < _SMALL:
                self._transport.write(b"".join(parts))
            else:
                self._transport.writelines(parts)

    def close(self) -> None:
        """End the connection once what was sent is out."""
        if self._transport is not None:
            self._transport.close()

    def abort_if_mute(self) -> None:
        """End the connection if nothing was said on it yet."""
        if not self._heard:
            self.abort()

    def abort(self) -> None:
        """End the connection now."""
        if self._transport is not None:
            self._transport.abort()


class Network(Protocol):
    """The seam to the network; the simulation has its own."""

    async def listen(self, make: Callable[[], Connection]) -> None:
        """Serve the replication port. Raises KVClusterError when it can't be had."""
        ...

    async def dial(self, address: str, make: Callable[[], Connection]) -> None:
        """Connect to host:port. Raises OSError or TimeoutError."""
        ...

    async def close(self) -> None:
        """Stop listening."""
        ...


class TcpNetwork:
    """The real network."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self._server: asyncio.Server | None = None

    async def listen(self, make: Callable[[], Connection]) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(make, self.host, self.port, backlog=64)
        except OSError as e:
            msg = f"can't listen for replicas on {self.host}:{self.port}: {e.strerror or e}; set --replication-port"
            raise KVClusterError(msg) from e
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def dial(self, address: str, make: Callable[[], Connection]) -> None:
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        await asyncio.wait_for(loop.create_connection(make, host, int(port)), DIAL_TIMEOUT)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
