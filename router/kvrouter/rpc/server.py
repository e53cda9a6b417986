"""The server: methods, a listening socket, and the connections' end."""

import asyncio
import socket
from collections.abc import Iterable, Mapping
from typing import NoReturn

import grpc
from grpc import aio

from kvrouter.rpc.calls import Begin, Handler
from kvrouter.rpc.connection import Connection, Methods

LOOK_SECONDS = 30.0  # between looks for clients that went without a word
BACKLOG = 1024


class Server(aio.Server):
    """A `grpc.aio.Server` on one insecure port, for services that `protoc` has generated."""

    def __init__(self, largest_message: int) -> None:
        self._methods = Methods(largest_message)
        self._opened: set[Connection] = set()
        self._socket: socket.socket | None = None
        self._listener: asyncio.Server | None = None
        self._looking: asyncio.TimerHandle | None = None

    def add_direct(self, methods: Mapping[str, Begin]) -> None:
        """Unary methods by path, answered by callbacks; before any handler of that path."""
        self._methods.direct.update({path.encode(): begin for path, begin in methods.items()})

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Handler]) -> None:
        """What generated code calls: methods by name."""
        for name, handler in method_handlers.items():
            self._methods.handlers[f"/{service_name}/{name}".encode()] = handler

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """What generated code calls beside it, with the same methods once more."""

    def add_insecure_port(self, address: str) -> int:
        """Bind host:port; returns the port. Raises RuntimeError as grpc.aio does."""
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((host, int(port)))
            bound.listen(BACKLOG)
        except OSError as error:
            bound.close()
            raise RuntimeError(f"can't listen on {address}: {error}") from error
        self._socket = bound
        return int(bound.getsockname()[1])

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> NoReturn:
        raise NotImplementedError("TLS is for a proxy in front")

    async def start(self) -> None:
        """Serve."""
        assert self._socket is not None, "add a port first"
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: Connection(self._methods, self._opened), sock=self._socket, backlog=BACKLOG
        )
        self._look()

    async def stop(self, grace: float | None) -> None:
        """Take no more connections and calls; those under way have `grace` seconds."""
        if self._looking is not None:
            self._looking.cancel()
        if self._listener is not None:
            self._listener.close()
        try:
            async with asyncio.timeout(grace or 0):
                await asyncio.gather(*(connection.drain() for connection in tuple(self._opened)))
        except TimeoutError:
            pass
        for connection in tuple(self._opened):
            connection.abort()

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        raise NotImplementedError("whoever starts the server ends it by `stop`")

    def _look(self) -> None:
        for connection in tuple(self._opened):
            connection.look()
        self._looking = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
