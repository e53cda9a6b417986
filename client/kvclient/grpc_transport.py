"""Streams over gRPC, and the topology as any server of the cluster tells it."""

import asyncio
from collections import deque
from collections.abc import Sequence

import grpc
from grpc import aio

from kvclient.topology import Endpoint
from kvclient.transport import Receiver
from kvcommon.numbers import KEEPALIVE, MAX_GRPC_MESSAGE_BYTES
from kvproto.pipeline import Request, ResultTuple
from kvproto.v1 import kv_pb2, kv_pb2_grpc

CONNECT_TIMEOUT = 2.0  # seconds until an address that does not answer is given up

_MS = 1000


def channel_options() -> list[tuple[str, int]]:
    """A dead peer is noticed within keepalive and its time-out; a new attempt is never held back for long."""
    return [
        ("grpc.max_send_message_length", MAX_GRPC_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", -1),  # how large the values are is known only once they are here
        ("grpc.keepalive_time_ms", int(KEEPALIVE * _MS)),
        ("grpc.keepalive_timeout_ms", int(KEEPALIVE * _MS)),
        ("grpc.http2.ping_timeout_ms", int(KEEPALIVE * _MS)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", int(CONNECT_TIMEOUT * _MS)),
        ("grpc.max_reconnect_backoff_ms", 500),
        ("grpc.use_local_subchannel_pool", 1),  # a new stream is a new connection, with no one else's back-off
        ("grpc.enable_retries", 0),  # sending again is the engine's, which knows what is safe
    ]


class ChannelFactory:
    """Makes channels: plain, or with TLS when credentials are given."""

    def __init__(self, credentials: grpc.ChannelCredentials | None = None) -> None:
        self._credentials = credentials

    def __call__(self, address: str) -> aio.Channel:
        """A channel to host:port."""
        if self._credentials is None:
            return aio.insecure_channel(address, options=channel_options())
        return aio.secure_channel(address, self._credentials, options=channel_options())


async def ready(channel: aio.Channel) -> None:
    """Return once connected; raise ConnectionError when that fails or takes longer than CONNECT_TIMEOUT."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            state = channel.get_state(try_to_connect=True)
            while state is not grpc.ChannelConnectivity.READY:
                if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
                    raise ConnectionError("can't connect")
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=True)
    except TimeoutError:
        raise ConnectionError(f"no connection within {CONNECT_TIMEOUT} s") from None


def describe(error: BaseException) -> str:
    """A failed call or connection, for a person."""
    if isinstance(error, aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) or type(error).__name__


class GrpcTransport:
    """Opens `Pipeline` streams, each on a channel of its own."""

    def __init__(self, channels: ChannelFactory) -> None:
        self._channels = channels
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, endpoint: Endpoint, receiver: Receiver) -> "GrpcStream":
        stream, address = GrpcStream(receiver), endpoint.address
        task = asyncio.get_running_loop().create_task(stream.run(self._channels(address)), name=f"kvclient-{address}")
        stream.task = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return stream

    async def close(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)


class GrpcStream:
    """One `Pipeline` call: one task reads, one writes in the order of `send`."""

    def __init__(self, receiver: Receiver) -> None:
        self.task: asyncio.Task[None] | None = None
        self._receiver: Receiver | None = receiver
        self._outgoing: deque[kv_pb2.BatchRequest] = deque()
        self._wake = asyncio.Event()

    def send(self, request: Request) -> None:
        self._outgoing.append(_message(request))
        self._wake.set()

    def close(self) -> None:
        self._receiver = None
        if self.task is not None:
            self.task.cancel()

    async def run(self, channel: aio.Channel) -> None:
        """Connect, carry batches until the stream ends, and say so."""
        reason = "the server ended the stream"
        try:
            await ready(channel)
            call: aio.StreamStreamCall[kv_pb2.BatchRequest, kv_pb2.BatchResponse]
            call = kv_pb2_grpc.KeyValueStub(channel).Pipeline()
            if self._receiver is not None:
                self._receiver.opened()
            writer = asyncio.get_running_loop().create_task(self._write(call))
            try:
                await self._read(call)
            finally:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
                call.cancel()
        except (aio.AioRpcError, ConnectionError, asyncio.InvalidStateError) as error:
            reason = describe(error)
        finally:
            receiver, self._receiver = self._receiver, None
            await channel.close()
            if receiver is not None:
                receiver.lost(reason)

    async def _read(self, call: "aio.StreamStreamCall[kv_pb2.BatchRequest, kv_pb2.BatchResponse]") -> None:
        while (response := await call.read()) is not aio.EOF:
            if self._receiver is None:
                return
            assert isinstance(response, kv_pb2.BatchResponse)
            self._receiver.answered(response.id, [_result(result) for result in response.results])

    async def _write(self, call: "aio.StreamStreamCall[kv_pb2.BatchRequest, kv_pb2.BatchResponse]") -> None:
        while True:
            while self._outgoing:
                await call.write(self._outgoing.popleft())
            self._wake.clear()
            await self._wake.wait()


def _message(request: Request) -> kv_pb2.BatchRequest:
    return kv_pb2.BatchRequest(
        id=request.id,
        operations=[
            kv_pb2.Operation(
                kind=kind,  # type: ignore[arg-type]  # the numbers are the API's
                key=key,
                value=value,
                expected_version=expected,
            )
            for kind, key, value, expected in request.operations
        ],
        client_id=request.client_id,
        sequence=request.sequence,
        age_ms=request.age_ms,
        read_mode=request.read_mode,  # type: ignore[arg-type]
        max_lag_ms=request.max_lag_ms,
        observed_version=request.observed_version,
        timeout_ms=request.timeout_ms,
    )


def _result(result: kv_pb2.Result) -> ResultTuple:
    if result.HasField("record"):
        return result.record.version, result.record.value, None
    return 0, b"", result.error


def parse_addresses(addresses: Sequence[str], default_port: int) -> tuple[str, ...]:
    """host:port of each, the port added where it is left out."""
    return tuple(a if ":" in a.rsplit("]", 1)[-1] else f"{a}:{default_port}" for a in addresses)
