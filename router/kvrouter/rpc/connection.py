"""One client's HTTP/2 connection. The one module that knows ngh2: bytes in, calls and their answers out."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, cast

import ngh2
import structlog
from ngh2 import exceptions

from kvrouter.rpc import wire
from kvrouter.rpc.calls import Begin, Call, DirectCall, Handler, TaskCall

log = structlog.get_logger()

MAX_STREAMS = 512  # calls of one connection at once; a client keeps more to itself until there is room
MAX_HEADER_BYTES = 16 << 10
STREAM_WINDOW = 1 << 20  # bytes that a client may send ahead on one stream
CONNECTION_WINDOW = 16 << 20
RESETS = (50_000, 10_000)  # at once, and per second: a call that its deadline ends is one, an attack sends far more
UNSENT_BYTES = 256 << 10  # of a stream's answers; above it, its handler waits

_CONFIGURATION: Final = ngh2.Configuration(
    auto_window_update=False,
    max_inbound_header_list_size=MAX_HEADER_BYTES,
    max_inbound_header_count=128,
    stream_reset_rate_limit=RESETS,
)
_SETTINGS: Final = {
    ngh2.Setting.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
    ngh2.Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
    ngh2.Setting.MAX_HEADER_LIST_SIZE: MAX_HEADER_BYTES,
}


class Methods:
    """What a server serves, by path."""

    def __init__(self, largest: int) -> None:
        self.largest = largest  # bytes of a message
        self.direct: dict[bytes, Begin] = {}
        self.handlers: dict[bytes, Handler] = {}


class Connection(asyncio.Protocol):
    """Serves one client until it goes, errs, or is told to end."""

    def __init__(self, methods: Methods, opened: "set[Connection]") -> None:
        """`opened` holds the connection while it lasts."""
        self.peer = ""
        self._methods = methods
        self._opened = opened
        self._loop = asyncio.get_running_loop()
        self._h2 = ngh2.Connection(ngh2.Role.SERVER, _CONFIGURATION)
        self._calls: dict[int, Call] = {}
        self._begun: set[int] = set()  # streams whose response headers were sent
        self._refused: list[int] = []  # streams answered before their client had sent everything
        self._room: dict[int, asyncio.Future[None]] = {}
        self._transport: asyncio.Transport | None = None
        self._writable = True
        self._scheduled = False
        self._draining: asyncio.Future[None] | None = None
        self._heard = True
        self._on: Mapping[type[ngh2.Event], Callable[..., None]] = {
            ngh2.RequestReceived: self._request,
            ngh2.DataReceived: self._data,
            ngh2.TrailersReceived: self._trailers,
            ngh2.StreamReset: self._gone,
            ngh2.StreamClosed: self._gone,
        }

    # -- what asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        address = transport.get_extra_info("peername")
        self.peer = f"ipv4:{address[0]}:{address[1]}" if address and ":" not in address[0] else f"ipv6:{address}"
        self._opened.add(self)
        self._h2.initiate_connection(_SETTINGS)
        self._h2.set_local_window_size(CONNECTION_WINDOW)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._heard = True
        try:
            self._h2.receive_data(data)
            self._tell()
        except exceptions.NGH2Error as error:
            log.debug("HTTP/2 error", peer=self.peer, error=str(error))
            self._flush()
            self.abort()
            return
        if not self._scheduled:
            self._flush()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._flush()

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        self._opened.discard(self)
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.cancelled()
        for future in (*self._room.values(), self._draining):
            if future is not None and not future.done():
                future.set_result(None)
        self._room.clear()

    # -- what the server tells

    def look(self) -> None:
        """End a connection that was silent since the last look, though it was pinged then; ping one that is silent."""
        if self._transport is None:
            return
        if not self._heard:
            self.abort()
            return
        self._heard = False
        self._h2.ping()
        self._flush()

    async def drain(self) -> None:
        """Take no more calls; return when all are answered and the client has been told to go."""
        if self._transport is None:
            return
        with suppress(exceptions.NGH2Error):  # a client that has said good-bye itself
            self._h2.send_shutdown_notice()
        self._draining = self._draining or self._loop.create_future()
        self._flush()
        await self._draining
        if self._transport is not None:
            with suppress(exceptions.NGH2Error):
                self._h2.terminate_connection()
            self._flush()
            self.abort()

    def abort(self) -> None:
        """End at once what is left."""
        if self._transport is not None:
            if self._transport.get_write_buffer_size():
                self._transport.abort()
            else:
                self._transport.close()
            self.connection_lost(None)

    # -- what calls need: calls.Wire

    def taken(self, stream: int, count: int) -> None:
        if self._transport is not None:
            self._h2.acknowledge_received_data(count, stream)

    def answer(self, stream: int, message: bytes) -> None:
        if self._calls.pop(stream, None) is None:
            return
        h2 = self._h2
        try:
            h2.send_response(stream, wire.RESPONSE)
            h2.send_data(stream, wire.framed(message))
            h2.send_trailers(stream, wire.OK_TRAILERS)
        except exceptions.NGH2Error:  # the stream is being reset for what its client did wrong
            return
        self._schedule()

    def send(self, stream: int, message: bytes) -> None:
        if stream not in self._calls:
            return
        try:
            if stream not in self._begun:
                self._begun.add(stream)
                self._h2.send_response(stream, wire.RESPONSE)
            self._h2.send_data(stream, wire.framed(message))
        except exceptions.NGH2Error:  # as above
            self._drop(stream)
        self._schedule()

    def end(self, stream: int, trailers: wire.Headers) -> None:
        if self._calls.pop(stream, None) is not None:
            self._end(stream, trailers)

    async def room(self, stream: int) -> None:
        if stream in self._calls and self._h2.queued_body_size(stream) > UNSENT_BYTES:
            future = self._room[stream] = self._loop.create_future()
            await future

    # -- what HTTP/2 tells

    def _request(self, event: ngh2.RequestReceived) -> None:
        stream = event.stream_id
        try:
            request = wire.read_request(event.headers)
            if request is None:
                self._h2.send_response(stream, wire.NOT_GRPC, end_stream=True)
                self._refused.append(stream)
                return
            begin = self._methods.direct.get(request.path)
            if begin is not None:
                self._calls[stream] = DirectCall(self, stream, begin, request.timeout, self._methods.largest)
            elif (handler := self._methods.handlers.get(request.path)) is not None:
                self._calls[stream] = TaskCall(self, stream, handler, request, self._methods.largest)
            else:
                raise wire.RpcError(wire.UNIMPLEMENTED, f"method not found: {request.path.decode('latin-1')}")
        except wire.RpcError as error:
            self._refuse(stream, error, ended=event.end_stream)
            return
        if event.end_stream:
            self._receive(stream, b"", last=True)

    def _data(self, event: ngh2.DataReceived) -> None:
        self._receive(event.stream_id, event.data, last=event.end_stream)

    def _trailers(self, event: ngh2.TrailersReceived) -> None:
        self._receive(event.stream_id, b"", last=True)

    def _tell(self) -> None:
        for event in self._h2.events():
            on = self._on.get(type(event))
            if on is not None:
                on(event)

    def _gone(self, event: ngh2.StreamReset | ngh2.StreamClosed) -> None:
        self._drop(event.stream_id)

    def _drop(self, stream: int) -> None:
        call = self._calls.pop(stream, None)
        if call is not None:
            self._begun.discard(stream)
            call.cancelled()
            room = self._room.pop(stream, None)
            if room is not None and not room.done():
                room.set_result(None)
            self._drained()

    def _receive(self, stream: int, data: bytes, *, last: bool) -> None:
        call = self._calls.get(stream)
        if call is None:  # it was answered before its client had sent everything
            if data:
                self._h2.acknowledge_received_data(len(data), stream)
            return
        try:
            call.receive(data, last=last)
        except wire.RpcError as error:
            call.cancelled()
            self._refuse(stream, error, ended=last)

    def _end(self, stream: int, trailers: wire.Headers) -> None:
        with suppress(exceptions.NGH2Error):  # as above
            if stream in self._begun:
                self._begun.discard(stream)
                self._h2.send_trailers(stream, trailers)
            else:
                self._h2.send_response(stream, (*wire.RESPONSE, *trailers), end_stream=True)
        self._schedule()

    def _refuse(self, stream: int, error: wire.RpcError, *, ended: bool) -> None:
        """Answer with a status and have no more of the stream."""
        self._calls.pop(stream, None)
        self._end(stream, wire.status(error.code, str(error)))
        if not ended:
            self._refused.append(stream)

    # -- writing

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Write what was gathered in this turn of the loop."""
        self._scheduled = False
        transport = self._transport
        if transport is None or not self._writable:
            return
        try:
            data = self._h2.data_to_send()
            for stream in self._refused:  # only now, for a reset overtakes the answer
                self._h2.reset_stream(stream, 0)
            if self._refused:
                self._refused.clear()
                data += self._h2.data_to_send()
            self._tell()  # of streams that libnghttp2 has reset
        except exceptions.NGH2Error:
            self.abort()
            return
        if data:
            transport.write(data)
        if self._room:
            self._wake()
        if self._draining is not None:
            self._drained()
        if not self._h2.want_read and not self._h2.want_write:  # a good-bye was said and nothing is left to do
            self.abort()

    def _wake(self) -> None:
        for stream, future in list(self._room.items()):
            if self._h2.queued_body_size(stream) <= UNSENT_BYTES // 2:
                del self._room[stream]
                if not future.done():
                    future.set_result(None)

    def _drained(self) -> None:
        """Let `drain` go on once everything is answered and the client's windows have taken it."""
        draining = self._draining
        if draining is not None and not draining.done() and not self._calls and not self._h2.queued_body_size():
            draining.set_result(None)
