"""Streams of plain frames on TCP, where a node offers them; gRPC everywhere else. See docs/pipeline.md."""

import asyncio
import socket
from typing import cast

from kvclient.grpc_transport import CONNECT_TIMEOUT, ChannelFactory, GrpcTransport
from kvclient.topology import Endpoint
from kvclient.transport import BatchStream, Receiver
from kvcommon.numbers import KEEPALIVE
from kvproto import pipeline

MAX_SILENT = 2  # looks, KEEPALIVE seconds apart, without a byte, after which the server is taken for gone


class NodeTransport:
    """Frames to nodes that offer them, gRPC to routers and to all else. It is a `transport.Transport`."""

    def __init__(self, channels: ChannelFactory, *, pipeline: bool = True) -> None:
        """`pipeline`: whether frames may be used at all; they go in clear text."""
        self._grpc = GrpcTransport(channels)
        self._allowed = pipeline
        self._unreached: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, endpoint: Endpoint, receiver: Receiver) -> BatchStream:
        if not self._allowed or not endpoint.pipeline or endpoint.pipeline in self._unreached:
            self._unreached.discard(endpoint.pipeline)
            return self._grpc.open(endpoint, receiver)
        stream = PipelineStream(receiver)
        stream.task = asyncio.get_running_loop().create_task(
            self._connect(stream, endpoint.pipeline), name=f"kvclient-{endpoint.pipeline}"
        )
        self._tasks.add(stream.task)
        stream.task.add_done_callback(self._tasks.discard)
        return stream

    async def _connect(self, stream: "PipelineStream", address: str) -> None:
        """Connect; an address that can't be reached is tried over gRPC the next time, it may be a firewall."""
        host, _, port = address.rpartition(":")
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await asyncio.get_running_loop().create_connection(lambda: stream, host.strip("[]"), int(port))
                await stream.greeted.wait()
        except (OSError, TimeoutError) as error:
            self._unreached.add(address)
            stream.fail(f"can't connect to {address}: {error or 'timed out'}")

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, self._grpc.close(), return_exceptions=True)


class PipelineStream(asyncio.Protocol):
    """One connection to a node's pipeline port."""

    def __init__(self, receiver: Receiver) -> None:
        self.task: asyncio.Task[None] | None = None
        self.greeted = asyncio.Event()
        self._receiver: Receiver | None = receiver
        self._decoder = pipeline.Decoder()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._silent = 0  # looks since the server was heard
        self._reason = "the server ended the connection"

    # --- as a BatchStream --------------------------------------------------------------------------------------------

    def send(self, request: pipeline.Request) -> None:
        if self._transport is not None:
            self._transport.write(pipeline.encode_request(request))

    def close(self) -> None:
        self._receiver = None
        if self.task is not None:
            self.task.cancel()
        if self._transport is not None:
            self._transport.abort()

    # --- as a protocol -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only
        if self._receiver is None:
            self._transport.abort()
            return
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport.write(pipeline.HELLO_FRAME)
        self._timer = asyncio.get_running_loop().call_later(KEEPALIVE, self._look)

    def data_received(self, data: bytes) -> None:
        self._silent = 0
        try:
            for kind, body in self._decoder.feed(data):
                self._frame(kind, body)
        except pipeline.FrameError as e:
            self.fail(str(e))

    def _frame(self, kind: int, body: bytes) -> None:
        receiver = self._receiver
        if receiver is None:
            return
        if kind == pipeline.ANSWER:
            number, results = pipeline.decode_answer(body)
            receiver.answered(number, results)
        elif kind == pipeline.HELLO:
            pipeline.check_hello(body)
            self.greeted.set()
            receiver.opened()
        elif kind == pipeline.END:
            self.fail(body.decode(errors="replace"))
        elif kind != pipeline.PING:
            raise pipeline.FrameError(f"a frame of kind {kind}, which no server sends")

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.fail(str(exc) if exc else self._reason)

    def fail(self, reason: str) -> None:
        """End, and say so."""
        receiver, self._receiver = self._receiver, None
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        self.greeted.set()
        if receiver is not None:
            receiver.lost(reason)

    def _look(self) -> None:
        """Every KEEPALIVE seconds: ask whether the server is there, and end what has long been silent."""
        self._silent += 1
        if self._silent > MAX_SILENT:
            self.fail(f"nothing heard for {MAX_SILENT * KEEPALIVE:g} s")
        elif self._transport is not None:
            self._transport.write(pipeline.PING_FRAME)
            self._timer = asyncio.get_running_loop().call_later(KEEPALIVE, self._look)
