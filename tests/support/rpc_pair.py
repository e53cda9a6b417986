"""A client's end of HTTP/2 in memory, and the router's connection at the other; no sockets."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from typing import cast

import ngh2

from kvrouter.rpc.connection import Connection, Methods

HEADERS = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":authority", b"router:7400"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
)


def framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


class Transport:
    """What the connection wrote, and whether it has let go."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def get_extra_info(self, _name: str) -> tuple[str, int]:
        return ("127.0.0.1", 4711)

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True

    abort = close


class Pair:
    """`pump` carries bytes both ways until there are none; what the client got is by stream."""

    def __init__(self, methods: Methods, window: int | None = None) -> None:
        self.client = ngh2.Connection(ngh2.Role.CLIENT, ngh2.Configuration(auto_window_update=window is None))
        self.transport = Transport()
        self.open: set[Connection] = set()
        self.server = Connection(methods, self.open)
        self.writes = 0
        self.headers: dict[int, dict[bytes, bytes]] = defaultdict(dict)  # with the trailers
        self.data: dict[int, bytearray] = defaultdict(bytearray)
        self.ended: set[int] = set()
        self.goaway = False
        self.server.connection_made(cast("asyncio.Transport", self.transport))
        self.client.initiate_connection({} if window is None else {ngh2.Setting.INITIAL_WINDOW_SIZE: window})
        self.pump()

    def pump(self) -> None:
        while True:
            out = self.client.data_to_send()
            if out and not self.transport.closed:
                self.server.data_received(out)
            written, self.transport.written = self.transport.written, []
            self.writes += len(written)
            for data in written:
                with suppress(ngh2.exceptions.ConnectionStateError):  # it was told to go before
                    self.client.receive_data(data)
            for event in self.client.events():
                self._note(event)
            if not out and not written:
                return

    async def settle(self, turns: int = 10) -> None:
        """Let tasks run and carry what they send."""
        for _ in range(turns):
            self.pump()
            await asyncio.sleep(0)
        self.pump()

    def call(self, path: bytes, *pieces: bytes, end: bool = True, more: Sequence[tuple[bytes, bytes]] = ()) -> int:
        """Begin a call and send its data."""
        headers = {**dict(HEADERS), b":path": path, **dict(more)}
        stream = self.client.send_request(sorted(headers.items()))  # those with a colon have to be first, and are
        for piece in pieces:
            self.client.send_data(stream, piece)
        if end:
            self.client.end_stream(stream)
        return stream

    def status(self, stream: int) -> int:
        assert stream in self.ended, "not answered"
        return int(self.headers[stream][b"grpc-status"])

    def _note(self, event: ngh2.Event) -> None:
        if isinstance(event, ngh2.ResponseReceived | ngh2.TrailersReceived):
            self.headers[event.stream_id].update(event.headers)
            if isinstance(event, ngh2.TrailersReceived) or event.end_stream:
                self.ended.add(event.stream_id)
        elif isinstance(event, ngh2.DataReceived):
            self.data[event.stream_id] += event.data
        elif isinstance(event, ngh2.GoAwayReceived):
            self.goaway = True
