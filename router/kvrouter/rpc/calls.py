"""Calls that the server answers: by a callback where every microsecond counts, by a task where a handler wants one."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol, TypeAlias, TypeVar

import grpc
import structlog
from grpc import aio

from kvrouter.rpc import wire
from kvrouter.rpc.context import AbortedError, Context

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # at run time no generic
T = TypeVar("T")
log = structlog.get_logger()

UNTAKEN_MESSAGES = 4  # of a stream, that its handler has not taken; more wait in HTTP/2's flow control


class Wire(Protocol):
    """What a call needs of its connection."""

    peer: str

    def taken(self, stream: int, count: int) -> None:
        """So many bytes of a stream make room for others."""
        ...

    def answer(self, stream: int, message: bytes) -> None:
        """End a unary call well."""
        ...

    def end(self, stream: int, trailers: wire.Headers) -> None:
        """End a call, whatever was sent of it before."""
        ...

    def send(self, stream: int, message: bytes) -> None:
        """Send one of several messages."""
        ...

    async def room(self, stream: int) -> None:
        """Wait until the client has taken most of what was sent."""
        ...


class Call(Protocol):
    """One stream, as its connection sees it."""

    def receive(self, data: bytes, *, last: bool) -> None:
        """Take data. Raises wire.RpcError, which ends the call."""
        ...

    def cancelled(self) -> None:
        """The client has gone or reset the stream: nobody waits for an answer."""
        ...


class DirectCall:
    """A unary call that a callback begins, and whoever holds this object ends, at once or later, on the event loop."""

    __slots__ = ("_begin", "_held", "_largest", "_wire", "gone", "stream", "timeout")

    def __init__(self, to: Wire, stream: int, begin: "Begin", timeout: float | None, largest: int) -> None:
        self._wire = to
        self._begin = begin
        self._held = bytearray()  # of a message that came in several frames
        self._largest = largest
        self.stream = stream
        self.timeout = timeout
        self.gone = False  # answered or cancelled

    def receive(self, data: bytes | bytearray, *, last: bool) -> None:
        if data:
            self._wire.taken(self.stream, len(data))
        if self._held or not last:
            self._held += data
            data = self._held
        size = len(data)
        whole = wire.PREFIX_BYTES
        if size >= whole:
            whole += wire.message_bytes(data, 0, self._largest)
        if size > whole:
            raise wire.RpcError(wire.UNIMPLEMENTED, "a unary call with more than one message")
        if not last:
            return
        if size < whole:
            raise wire.RpcError(wire.INTERNAL, "a unary call without a whole message")
        try:
            self._begin(bytes(data[wire.PREFIX_BYTES :]), self)
        except wire.RpcError:
            raise
        except Exception as error:
            log.exception("call failed", stream=self.stream)
            raise wire.RpcError(wire.UNKNOWN, f"{type(error).__name__}: {error}") from error

    def answer(self, message: bytes) -> None:
        """End well."""
        if not self.gone:
            self.gone = True
            self._wire.answer(self.stream, message)

    def fail(self, code: int, message: str, metadata: wire.Metadata = ()) -> None:
        """End with a status."""
        if not self.gone:
            self.gone = True
            self._wire.end(self.stream, wire.status(code, message, metadata))

    def cancelled(self) -> None:
        self.gone = True


Begin = Callable[[bytes, DirectCall], None]


class TaskCall:
    """A call that a handler of grpc.aio's kind answers, in a task of its own."""

    def __init__(self, to: Wire, stream: int, handler: Handler, request: wire.Request, largest: int) -> None:
        self._wire = to
        self._stream = stream
        self._handler = handler
        self._messages = wire.Messages(largest)
        self._waiting: deque[bytes] = deque()
        self._ended = False  # the client has sent its last message
        self._owed = 0  # bytes that were received and don't make room yet
        self._arrived = asyncio.Event()
        self._late = False
        self._loop = asyncio.get_running_loop()
        self._deadline: asyncio.TimerHandle | None = None
        if request.timeout is not None:
            self._deadline = self._loop.call_later(request.timeout, self._expired)
        self._context = Context(self, request, to.peer, self._loop)
        self._task = self._loop.create_task(self._run(), name=request.path.decode("latin-1"))

    # -- what the connection tells

    def receive(self, data: bytes, *, last: bool) -> None:
        self._owed += len(data)
        self._waiting += self._messages.feed(data)
        self._make_room()
        if last:
            self._ended = True
            if self._messages.held:
                raise wire.RpcError(wire.INTERNAL, "a message that ends too early")
        if self._waiting or last:
            self._arrived.set()

    def cancelled(self) -> None:
        self._task.cancel()
        self._give_back()

    # -- what the context needs

    async def next_message(self) -> Any:
        """The client's next message, or aio.EOF."""
        while not self._waiting:
            if self._ended:
                return aio.EOF
            self._arrived.clear()
            await self._arrived.wait()
        message = self._waiting.popleft()
        self._make_room()
        return _coded(self._handler.request_deserializer, message)

    async def send(self, message: Any) -> None:
        """Send one of several answers; waits while the client does not take them."""
        self._wire.send(self._stream, _coded(self._handler.response_serializer, message))
        await self._wire.room(self._stream)

    # -- inside

    def _make_room(self) -> None:
        if len(self._waiting) < UNTAKEN_MESSAGES:
            self._give_back()

    def _give_back(self) -> None:
        if self._owed:
            self._wire.taken(self._stream, self._owed)
            self._owed = 0

    def _expired(self) -> None:
        self._late = True
        self._task.cancel()

    async def _run(self) -> None:
        context = self._context
        try:
            await self._handle()
            trailers = wire.status(context.status, context.told, context.trailing_metadata())
        except AbortedError:
            trailers = wire.status(context.status, context.told, context.trailing_metadata())
        except wire.RpcError as error:
            trailers = wire.status(error.code, str(error))
        except asyncio.CancelledError:
            if not self._late:
                raise
            trailers = wire.status(wire.DEADLINE_EXCEEDED, "the deadline has passed")
        except Exception as error:
            log.exception("call failed", method=self._task.get_name())
            trailers = wire.status(wire.UNKNOWN, f"{type(error).__name__}: {error}")
        finally:
            if self._deadline is not None:
                self._deadline.cancel()
            self._give_back()
        self._wire.end(self._stream, trailers)

    async def _handle(self) -> None:
        handler, context = self._handler, self._context
        if handler.request_streaming:
            argument: Any = self._requests()
        elif (argument := await self._only_message()) is aio.EOF:
            raise wire.RpcError(wire.INTERNAL, "a unary call without a message")
        if not handler.response_streaming:
            unary: Any = handler.stream_unary if handler.request_streaming else handler.unary_unary
            self._wire.send(self._stream, _coded(handler.response_serializer, await unary(argument, context)))
            return
        streaming: Any = handler.stream_stream if handler.request_streaming else handler.unary_stream
        answers = streaming(argument, context)
        if not hasattr(answers, "__aiter__"):  # a coroutine that calls context.write
            await answers
            return
        async for answer in answers:
            await self.send(answer)

    async def _only_message(self) -> Any:
        first = await self.next_message()
        if first is not aio.EOF and await self.next_message() is not aio.EOF:
            raise wire.RpcError(wire.UNIMPLEMENTED, "more than one message where one was expected")
        return first

    async def _requests(self) -> AsyncIterator[Any]:
        while (message := await self.next_message()) is not aio.EOF:
            yield message


def _coded(by: Callable[[Any], T] | None, message: Any) -> T:
    assert by is not None, "generated services have serializers"
    return by(message)
