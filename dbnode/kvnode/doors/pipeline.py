"""The pipeline door: the batches of `KeyValue.Pipeline` as plain frames on TCP (kvproto.pipeline; docs/pipeline.md).

It is what kvclient and the router use between processes of ours: a gRPC message costs some 150 µs of CPU at each end,
a frame a tenth of that.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import cast

import structlog

from kvcommon.clock import Clock
from kvcommon.errors import KVClusterError
from kvnode.doors.answers import LEADERSHIP_ENDED, Errors, wrong_batch, wrong_freshness
from kvnode.operations import Code, Found, Outcome, ReadMode, Request, Written
from kvnode.service import Service
from kvproto import pipeline

log = structlog.get_logger()

MAX_UNANSWERED = 64  # batches of one connection
SILENCE = 20.0  # seconds without a byte after which a client is taken for gone; kvclient pings every second


class _Connection(asyncio.Protocol):
    """One client. Answers are sent as they come, in any order."""

    def __init__(self, door: "PipelineDoor") -> None:
        self._door = door
        self._decoder = pipeline.Decoder()
        self._transport: asyncio.Transport | None = None
        self._greeted = False
        self._unanswered = 0
        self._clogged = False  # the client does not take its answers
        self._paused = False
        self._heard = False  # since the last look
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._door.connections.add(self)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        self._transport = None
        self._door.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        """End a connection whose client was silent since the last look, unless it waits for us."""
        if self._timer is not None and not self._heard and (self._clogged or not self._paused):
            self.abort()
            return
        self._heard = False
        self._timer = asyncio.get_running_loop().call_later(SILENCE, self._look)

    def data_received(self, data: bytes) -> None:
        self._heard = True
        try:
            for kind, body in self._decoder.feed(data):
                self._frame(kind, body)
        except pipeline.FrameError as e:
            log.warning("client's connection ended: bad frame", error=str(e))
            self.abort()

    def _frame(self, kind: int, body: bytes) -> None:
        if self._transport is None:
            return
        if not self._greeted:
            if kind != pipeline.HELLO:
                raise pipeline.FrameError(f"a frame of kind {kind} where a connection begins")
            pipeline.check_hello(body)
            self._greeted = True
            self._transport.write(pipeline.HELLO_FRAME)
        elif kind == pipeline.REQUEST and (answer := self._door.answer_one(body)) is not None:
            self._transport.write(answer)
        elif kind == pipeline.REQUEST:
            self._unanswered += 1
            self._door.submit(pipeline.decode_request(body), len(body), self._answer)
            self._throttle()
        elif kind == pipeline.PING:
            self._transport.write(pipeline.PING_FRAME)
        else:
            raise pipeline.FrameError(f"a frame of kind {kind}, which no client sends")

    def _answer(self, data: bytes, *, last: bool) -> None:
        """Send an answer; `last`: the connection ends with it."""
        self._unanswered -= 1
        if self._transport is not None:
            self._transport.write(data)
            if last:
                self._transport.close()
            elif self._paused:
                self._throttle()

    def pause_writing(self) -> None:
        self._clogged = True
        self._throttle()

    def resume_writing(self) -> None:
        self._clogged = False
        self._throttle()

    def _throttle(self) -> None:
        """Read no more while too much is under way, or the client only sends."""
        if self._transport is None or self._transport.is_closing():
            return
        full = self._clogged or self._unanswered >= MAX_UNANSWERED
        if full != self._paused:
            self._paused = full
            (self._transport.pause_reading if full else self._transport.resume_reading)()

    def abort(self) -> None:
        """End the connection now."""
        if self._transport is not None:
            self._transport.abort()


class PipelineDoor:
    """The pipeline port of one node."""

    def __init__(self, service: Service, clock: Clock, errors: Errors) -> None:
        self._service, self._clock, self._errors = service, clock, errors
        self._server: asyncio.Server | None = None
        self.connections: set[_Connection] = set()

    async def start(self, host: str, port: int) -> int:
        """Serve; returns the port. Raises KVClusterError when it can't be had."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: _Connection(self), host, port, backlog=256)
        except OSError as e:
            msg = f"can't serve batches on {host}:{port}: {e.strerror or e}; set another --pipeline-port"
            raise KVClusterError(msg) from e
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """End everything; unanswered batches are sent again to whoever leads then."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self.connections):
            connection.abort()

    def answer_one(self, body: bytes) -> bytes | None:
        """The answer to one linearizable Get that finds a value, as one caller asks, without making columns; else None."""
        asked = pipeline.one_get(body)
        if asked is None:
            return None
        number, key = asked
        record = self._service.record(key)
        return None if record is None else pipeline.encode_record(number, record[3], record[2])

    def submit(self, request: pipeline.Request, size: int, send: Callable[..., None]) -> None:
        """Do a request of `size` bytes; `send(data, last=...)` is called once."""
        wrong = wrong_batch(len(request.operations), size, request.client_id, request.sequence)
        wrong = wrong or wrong_freshness(request.read_mode, request.max_lag_ms)
        if wrong:
            bad = [Outcome(Code.INVALID_ARGUMENT, message=wrong)] * max(1, len(request.operations))
            send(self._encode(request.id, bad), last=False)
            return

        def answer(outcomes: Sequence[Outcome] | None) -> None:
            if outcomes is not None:
                send(self._encode(request.id, outcomes), last=False)
            elif request.client_id:
                send(pipeline.frame(pipeline.END, LEADERSHIP_ENDED.encode()), last=True)
            else:
                send(self._encode(request.id, [Outcome(Code.OUTCOME_UNKNOWN)] * len(request.operations)), last=False)

        self._service.submit(self._request(request, size), answer)

    def _request(self, request: pipeline.Request, size: int) -> Request:
        deadline = self._clock.now() + request.timeout_ms / 1000 if request.timeout_ms else float("inf")
        return Request(
            request.operations,
            pair=(request.client_id, request.sequence) if request.client_id else None,
            age=request.age_ms / 1000,
            read_mode=request.read_mode or ReadMode.LINEARIZABLE,
            max_lag=request.max_lag_ms / 1000,
            observed=request.observed_version,
            deadline=deadline,
            size=size,
        )

    def _encode(self, number: int, outcomes: Sequence[Outcome]) -> bytes:
        if type(outcomes) is Written:
            return pipeline.encode_series(number, outcomes.versions[0], len(outcomes))
        if type(outcomes) is Found:
            return pipeline.encode_records(number, outcomes.versions, outcomes.values)
        error = self._errors.of
        return pipeline.encode_answer(
            number, [(out[1], out[2], None) if not out[0] else (0, b"", error(out)) for out in outcomes]
        )
