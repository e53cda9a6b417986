"""The router's Redis port: accepts clients, and follows what coordination says."""

import asyncio
from functools import partial

import structlog

from kvcommon.errors import KVClusterError
from kvcoord.view import ClusterView
from kvresp import errors, replies
from kvrouter.redis.backend import Backend
from kvrouter.redis.forwarder import Forwarder
from kvrouter.redis.hub import Hub, Limits
from kvrouter.redis.session import Session, rehome

log = structlog.get_logger()

SWEEP_SECONDS = 0.25  # by so much at most a command is answered after its deadline
_HELLO_3 = b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n"


class RedisServer:
    """Serves from `start` to `close`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Limits | None = None) -> None:
        self._loop = loop
        forwarder = Forwarder(
            loop,
            dial=partial(dial, loop),
            greeting=lambda protocol: _HELLO_3 if protocol == 3 else b"",
            unknown=replies.error(errors.UNKNOWN_OUTCOME),
            rehome=rehome,
        )
        self.hub = Hub(loop, forwarder, limits or Limits())
        self._server: asyncio.Server | None = None
        self._sweep: asyncio.TimerHandle | None = None

    def view_changed(self, view: ClusterView) -> None:
        """Follow map and leaders."""
        self.hub.view_changed(view)

    async def start(self, host: str, port: int) -> int:
        """Serve; returns the port. Raises KVClusterError when it can't be had."""
        try:
            self._server = await self._loop.create_server(lambda: Session(self.hub), host, port, backlog=1024)
        except OSError as error:
            raise KVClusterError(
                f"can't serve Redis on {host}:{port}: {error.strerror or error}; "
                "set another --redis-port, or end what holds this one"
            ) from error
        self._swept()
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self, grace: float) -> None:
        """Take no more clients; commands under way have `grace` seconds."""
        if self._server is None:
            return
        self._server.close()
        await self.hub.drain(grace)
        if self._sweep is not None:
            self._sweep.cancel()
        self.hub.close()

    def _swept(self) -> None:
        self.hub.expire(self._loop.time())
        self._sweep = self._loop.call_later(SWEEP_SECONDS, self._swept)


async def dial(loop: asyncio.AbstractEventLoop, address: str, backend: Backend) -> None:
    """Connect to host:port. Raises OSError."""
    host, _, port = address.rpartition(":")
    await loop.create_connection(lambda: backend, host.strip("[]"), int(port))
