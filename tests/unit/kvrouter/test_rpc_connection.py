"""The router's HTTP/2 connection, against a client's end in memory."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from itertools import pairwise
from typing import Any, cast

import grpc
import ngh2
import pytest
from grpc import aio
from hypothesis import given, settings
from hypothesis import strategies as st

from kvrouter.rpc import connection as rpc_connection
from kvrouter.rpc import wire
from kvrouter.rpc.calls import UNTAKEN_MESSAGES, DirectCall
from kvrouter.rpc.connection import Connection, Methods
from tests.support.rpc_pair import Pair, Transport, framed

LARGEST = 1 << 20


class Served:
    """A direct method /d, and handlers; what they saw."""

    def __init__(self) -> None:
        self.methods = Methods(LARGEST)
        self.calls: list[tuple[bytes, DirectCall]] = []
        self.read: list[bytes] = []
        self.cancelled = 0
        self.go = asyncio.Event()
        self.methods.direct[b"/d"] = lambda message, call: self.calls.append((message, call))
        self.add(b"/unary", grpc.unary_unary_rpc_method_handler, self.unary)
        self.add(b"/many", grpc.unary_stream_rpc_method_handler, self.many)
        self.add(b"/echo", grpc.stream_stream_rpc_method_handler, self.echo)

    def add(self, path: bytes, kind: Any, behaviour: Any) -> None:
        self.methods.handlers[path] = kind(behaviour, request_deserializer=bytes, response_serializer=bytes)

    async def unary(self, message: bytes, context: "aio.ServicerContext[Any, Any]") -> bytes:
        if message == b"abort":
            await context.abort(grpc.StatusCode.NOT_FOUND, "not here", (("x-bin", b"\1"),))
        if message == b"fail":
            raise ValueError("a defect")
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return message + b"!"

    async def many(self, message: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(int(message)):
            self.read.append(b"%d" % number)
            yield bytes(100_000)

    async def echo(self, messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for message in messages:
            await self.go.wait()
            self.read.append(message)
            yield message


async def lived(served: Served, pieces: Iterable[bytes]) -> Transport:
    """A connection's whole life: the pieces come, calls are answered, and nothing of it is left."""
    served.go.set()
    transport, opened = Transport(), set[Connection]()
    server = Connection(served.methods, opened)
    server.connection_made(cast("asyncio.Transport", transport))
    for piece in pieces:
        if not transport.closed:
            server.data_received(piece)
            for message, call in served.calls:
                call.answer(message)
            served.calls.clear()
            await asyncio.sleep(0)
    if not transport.closed:
        server.connection_lost(None)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not opened
    return transport


@pytest.fixture
async def served() -> Served:
    return Served()


@pytest.fixture
async def pair(served: Served) -> Pair:
    return Pair(served.methods)


async def test_a_direct_call_is_answered_when_its_holder_says_so(served: Served, pair: Pair) -> None:
    stream = pair.call(b"/d", framed(b"ask"), more=[(b"grpc-timeout", b"2S")])
    pair.pump()
    ((message, call),) = served.calls
    assert (message, call.timeout, pair.headers) == (b"ask", 2.0, {})
    call.answer(b"told")
    await pair.settle()
    assert pair.data[stream] == framed(b"told")
    assert pair.status(stream) == 0
    assert pair.headers[stream][b"content-type"] == b"application/grpc"


async def test_answers_of_one_turn_of_the_loop_are_one_write(served: Served, pair: Pair) -> None:
    streams = [pair.call(b"/d", framed(b"%d" % i)) for i in range(50)]
    pair.pump()
    before = pair.writes
    for message, call in served.calls:
        call.answer(message)
    await pair.settle()
    assert pair.writes - before == 1
    assert [pair.data[stream] for stream in streams] == [framed(b"%d" % i) for i in range(50)]


@pytest.mark.parametrize("path", [b"/d", b"/unary"])
async def test_a_message_in_pieces_is_put_together(served: Served, pair: Pair, path: bytes) -> None:
    message = bytes(range(256)) * 300
    data = framed(message)
    stream = pair.call(path, data[:1], data[1:7], data[7:], end=False)
    pair.pump()
    assert not served.calls
    pair.client.end_stream(stream)
    served.go.set()
    await pair.settle()
    for found, call in served.calls:
        call.answer(found + b"!")
    await pair.settle()
    assert pair.data[stream] == framed(message + b"!")


@pytest.mark.parametrize("path", [b"/d", b"/unary"])
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (framed(b"a") + framed(b"b"), wire.UNIMPLEMENTED),
        (b"", wire.INTERNAL),
        (b"\0\0\0\0", wire.INTERNAL),
        (framed(b"abc")[:-1], wire.INTERNAL),
        (b"\1" + framed(b"a")[1:], wire.INTERNAL),
        (b"\0\xff\xff\xff\xff", wire.RESOURCE_EXHAUSTED),
    ],
)
async def test_a_unary_call_that_is_wrong_is_refused(
    served: Served, pair: Pair, path: bytes, data: bytes, status: int
) -> None:
    served.go.set()
    stream = pair.call(path, *([data] if data else []))
    await pair.settle()
    assert pair.status(stream) == status
    assert not served.calls
    other = pair.call(b"/unary", framed(b"well"))
    await pair.settle()
    assert pair.data[other] == framed(b"well!"), "the connection goes on"


async def test_a_refused_call_is_told_why_before_it_is_reset(pair: Pair) -> None:
    stream = pair.call(b"/d", b"\0\xff\xff\xff\xff", end=False)
    await pair.settle()
    assert pair.status(stream) == wire.RESOURCE_EXHAUSTED
    assert b"4294967295" in pair.headers[stream][b"grpc-message"]


async def test_an_unknown_method_and_what_is_no_grpc_are_refused(pair: Pair) -> None:
    unknown = pair.call(b"/nothing", framed(b""))
    page = pair.call(b"/d", more=[(b"content-type", b"text/html")])
    await pair.settle()
    assert pair.status(unknown) == wire.UNIMPLEMENTED
    assert pair.headers[page][b":status"] == b"415"


async def test_an_answer_to_a_call_that_was_cancelled_goes_nowhere(served: Served, pair: Pair) -> None:
    stream = pair.call(b"/d", framed(b"ask"))
    pair.pump()
    pair.client.reset_stream(stream)
    pair.pump()
    ((_, call),) = served.calls
    assert call.gone
    call.answer(b"late")
    call.fail(13, "late")
    await pair.settle()
    assert stream not in pair.ended


async def test_a_client_may_give_up_on_many_calls(served: Served, pair: Pair) -> None:
    """As deadlines make it when the cluster is slow; libnghttp2 by itself allows 1,000 and then 33 a second."""
    for _ in range(3000):
        pair.client.reset_stream(pair.call(b"/d", framed(b"ask")))
    await pair.settle()
    stream = pair.call(b"/d", framed(b"ask"))
    await pair.settle()
    served.calls[-1][1].answer(b"told")
    await pair.settle()
    assert pair.status(stream) == 0


async def test_a_defect_of_a_direct_method_is_its_callers_alone(served: Served, pair: Pair) -> None:
    def begin(_message: bytes, _call: DirectCall) -> None:
        raise ValueError("a defect")

    served.methods.direct[b"/broken"] = begin
    stream = pair.call(b"/broken", framed(b"ask"))
    await pair.settle()
    assert pair.status(stream) == wire.UNKNOWN
    assert not pair.transport.closed


async def test_a_handler_ends_its_call_with_a_status(pair: Pair) -> None:
    aborted, failed = pair.call(b"/unary", framed(b"abort")), pair.call(b"/unary", framed(b"fail"))
    await pair.settle()
    assert pair.headers[aborted] == {
        b":status": b"200",
        b"content-type": b"application/grpc",
        b"grpc-status": b"5",
        b"grpc-message": b"not here",
        b"x-bin": b"AQ",
    }
    assert pair.status(failed) == wire.UNKNOWN


async def test_a_handler_is_cancelled_with_its_stream_at_its_deadline_and_with_the_connection(
    served: Served, pair: Pair
) -> None:
    reset = pair.call(b"/unary", framed(b"a"))
    pair.call(b"/unary", framed(b"c"))
    await pair.settle()
    pair.client.reset_stream(reset)
    await pair.settle()
    assert served.cancelled == 1
    late = pair.call(b"/unary", framed(b"b"), more=[(b"grpc-timeout", b"1m")])
    while late not in pair.ended:
        await asyncio.sleep(0.001)
        await pair.settle()
    assert (served.cancelled, pair.status(late)) == (2, wire.DEADLINE_EXCEEDED)
    pair.server.connection_lost(None)
    await pair.settle()
    assert (served.cancelled, pair.open) == (3, set())


async def test_a_stream_of_messages_waits_for_its_handler(served: Served, pair: Pair) -> None:
    message = framed(bytes(LARGEST - 100))
    stream = pair.call(b"/echo", *[message] * 20, end=False)
    await pair.settle()
    held = pair.client.queued_body_size(stream)
    assert held >= (20 - UNTAKEN_MESSAGES - 3) * len(message), "the rest is not taken from the client"
    served.go.set()
    pair.client.end_stream(stream)
    await pair.settle(400)
    assert len(served.read) == 20
    assert pair.status(stream) == 0


async def test_a_handler_waits_for_a_client_that_does_not_take_its_messages(served: Served) -> None:
    pair = Pair(served.methods, window=50_000)
    stream = pair.call(b"/many", framed(b"40"))
    await pair.settle()
    assert len(served.read) <= 2 + rpc_connection.UNSENT_BYTES // 100_000
    taken = 0
    while stream not in pair.ended:
        got = len(pair.data[stream])
        pair.client.acknowledge_received_data(got - taken, stream)
        taken = got
        await pair.settle(4)
    assert len(served.read) == 40
    assert len(pair.data[stream]) == 40 * 100_005


async def test_a_client_that_goes_without_a_word_is_let_go_and_one_that_is_only_silent_is_kept(
    served: Served, pair: Pair
) -> None:
    for _ in range(3):
        pair.server.look()
        pair.pump()
    assert not pair.transport.closed
    pair.server.look()
    pair.server.look()
    assert pair.transport.closed
    assert not pair.open


async def test_draining_finishes_what_is_under_way_and_says_good_bye(served: Served, pair: Pair) -> None:
    stream = pair.call(b"/d", framed(b"ask"))
    pair.pump()
    draining = asyncio.ensure_future(pair.server.drain())
    await pair.settle()
    assert pair.goaway
    assert not draining.done()
    ((_, call),) = served.calls
    call.answer(b"told")
    await pair.settle()
    assert pair.data[stream] == framed(b"told")
    await draining
    assert pair.transport.closed


async def test_what_is_no_http2_ends_the_connection(served: Served) -> None:
    pair = Pair(served.methods)
    other = Pair(served.methods)
    other.server.data_received(b"\xff" * 100)
    assert other.transport.closed
    assert other.open == set()
    assert pair.open == {pair.server}


def recorded() -> bytes:
    """What a client sends in a short session with several kinds of calls."""
    client = ngh2.Connection(ngh2.Role.CLIENT)
    client.initiate_connection()
    out = client.data_to_send()
    for path in (b"/d", b"/unary", b"/echo", b"/nothing"):
        headers = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"r"), (b":path", path)]
        stream = client.send_request([*headers, (b"content-type", b"application/grpc"), (b"grpc-timeout", b"9S")])
        client.send_data(stream, framed(b"message"))
        client.send_data(stream, framed(b"other"), end_stream=path != b"/echo")
        client.ping(b"12345678")
        out += client.data_to_send()
        if path == b"/unary":
            client.reset_stream(stream)
    return out


SESSION = recorded()


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(SESSION) - 1), st.binary(max_size=12), st.integers(0, 12)), max_size=6),
    st.lists(st.integers(1, len(SESSION)), max_size=6),
    st.binary(max_size=60),
)
async def test_spoiled_bytes_are_answered_or_end_the_connection(
    spoiled: list[tuple[int, bytes, int]], cuts: list[int], tail: bytes
) -> None:
    """Whatever comes, nothing is raised into the event loop, and what is written is HTTP/2."""
    data = SESSION
    for at, by, gone in spoiled:
        data = data[:at] + by + data[at + gone :]
    data += tail
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    transport = await lived(Served(), (data[at:end] for at, end in pairwise([0, *sorted(cuts), len(data)])))
    assert not unhandled
    written = b"".join(transport.written)
    while written:
        written = written[9 + int.from_bytes(written[:3], "big") :]
        assert len(written) == 0 or len(written) >= 9
