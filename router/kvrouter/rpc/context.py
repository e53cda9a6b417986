"""What a handler of grpc.aio's kind is given of its call."""

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

import grpc
from grpc import aio

from kvrouter.rpc import wire


class AbortedError(Exception):
    """A handler has ended its call by `abort`."""


class Stream(Protocol):
    """What the context needs of its call."""

    async def next_message(self) -> Any:
        """The client's next message, or aio.EOF."""
        ...

    async def send(self, message: Any) -> None:
        """Send an answer."""
        ...


class Context(aio.ServicerContext[Any, Any]):
    """A call's status, deadline and messages. What no handler of ours uses says that it is not there."""

    def __init__(self, stream: Stream, request: wire.Request, peer: str, loop: asyncio.AbstractEventLoop) -> None:
        self._stream = stream
        self._request = request
        self._peer = peer
        self._loop = loop
        self._until = None if request.timeout is None else loop.time() + request.timeout
        self._trailing: wire.Metadata = ()
        self._code = grpc.StatusCode.OK
        self.told = ""

    @property
    def status(self) -> int:
        """The status as a number."""
        return int(self._code.value[0])

    async def read(self) -> Any:
        return await self._stream.next_message()

    async def write(self, message: Any) -> None:
        await self._stream.send(message)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        self._code = grpc.StatusCode.UNKNOWN if code is grpc.StatusCode.OK else code
        self.told = details
        self._trailing = trailing_metadata or self._trailing
        raise AbortedError(details)

    async def abort_with_status(self, status: Any) -> NoReturn:
        await self.abort(status.code, status.details, status.trailing_metadata)

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self._trailing = trailing_metadata

    def trailing_metadata(self) -> Any:
        return self._trailing

    def set_code(self, code: Any) -> None:
        self._code = code

    def set_details(self, details: str) -> None:
        self.told = details

    def code(self) -> Any:
        return self._code

    def details(self) -> Any:
        return self.told

    def time_remaining(self) -> float | None:  # type: ignore[override]  # grpc.aio's own gives None, too
        return None if self._until is None else max(0.0, self._until - self._loop.time())

    def invocation_metadata(self) -> Any:
        return tuple(
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in self._request.headers.items()
            if not name.startswith(b":")
        )

    def peer(self) -> str:
        return self._peer

    def peer_identities(self) -> None:
        return None

    def peer_identity_key(self) -> None:
        return None

    def auth_context(self) -> dict[str, Any]:
        return {}

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        raise NotImplementedError("initial metadata is not sent")

    def set_compression(self, compression: Any) -> None:
        raise NotImplementedError("messages are not compressed")

    def disable_next_message_compression(self) -> None:
        return

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        raise NotImplementedError("a handler ends with its task")
