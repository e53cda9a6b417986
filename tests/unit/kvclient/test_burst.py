"""Single calls that travel as one burst, and what becomes of them when something goes wrong with some."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from kvclient import AsyncClient, NotFoundError
from kvclient.engine import Engine, Limits
from kvclient.errors import ClientClosedError, UnavailableError
from kvproto.pipeline import Columns, ResultTuple
from kvproto.v1 import kv_pb2
from tests.unit.kvclient.list_transport import GivenSource, ListTransport, engine_over, turns

REFUSED = kv_pb2.Error(code=kv_pb2.ERROR_CODE_UNAVAILABLE, message="not now")
MISSING = kv_pb2.Error(code=kv_pb2.ERROR_CODE_NOT_FOUND)


async def sent_again(transport: ListTransport) -> None:
    """The client waits a little before it does."""
    async with asyncio.timeout(5):
        transport.streams[0].sent.clear()
        while not transport.stream.sent:  # noqa: ASYNC110 - a list tells nobody
            await asyncio.sleep(0.01)


@pytest.fixture
async def transport() -> ListTransport:
    return ListTransport()


@pytest.fixture
async def engine(transport: ListTransport) -> AsyncIterator[Engine]:
    engine = await engine_over(transport, GivenSource(), Limits(operations=8))
    yield engine
    await engine.close()


async def test_calls_that_are_alike_travel_in_columns(engine: Engine, transport: ListTransport) -> None:
    """No tuple is made for each."""
    client = AsyncClient(engine)
    calls = [asyncio.ensure_future(client.put(b"%d" % i, b"v")) for i in range(5)]
    await turns()
    [request] = transport.stream.sent
    assert type(request.operations) is Columns
    assert request.operations.keys == (b"0", b"1", b"2", b"3", b"4")
    transport.stream.answer()
    assert await asyncio.gather(*calls) == [1, 2, 3, 4, 5]
    assert engine.under_way == 0


async def test_a_caller_that_gave_up_before_the_sending_is_not_sent(engine: Engine, transport: ListTransport) -> None:
    """The others are."""
    client = AsyncClient(engine)
    calls = [asyncio.ensure_future(client.put(b"%d" % i, b"v")) for i in range(3)]
    await asyncio.sleep(0)
    calls[1].cancel()
    await turns()
    [request] = transport.stream.sent
    assert [operation[1] for operation in request.operations] == [b"0", b"2"]
    transport.stream.answer()
    await asyncio.gather(*calls, return_exceptions=True)
    assert engine.under_way == 0


async def test_what_was_refused_is_sent_again_and_the_rest_is_not(engine: Engine, transport: ListTransport) -> None:
    """Each caller is told of its own call."""
    client = AsyncClient(engine)
    calls = [asyncio.ensure_future(client.update(b"%d" % i, b"v")) for i in range(4)]
    await turns()
    request = transport.stream.sent.pop()
    results: list[ResultTuple] = [(7, b"", None), (0, b"", REFUSED), (0, b"", MISSING), (0, b"", REFUSED)]
    transport.stream.receiver.answered(request.id, results)
    await turns()
    assert [call.done() for call in calls] == [True, False, True, False]
    assert engine.under_way == 2
    await sent_again(transport)
    again = transport.stream.sent[0]
    assert [operation[1] for operation in again.operations] == [b"1", b"3"]
    assert again.sequence != request.sequence
    transport.stream.answer()
    told = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one) for one in told] == [int, int, NotFoundError, int]
    assert engine.under_way == 0


async def test_a_lost_burst_of_writes_is_sent_again_as_it_was(engine: Engine, transport: ListTransport) -> None:
    """Under the same pair."""
    client = AsyncClient(engine)
    calls = [asyncio.ensure_future(client.put(b"%d" % i, b"v")) for i in range(3)]
    await turns()
    first = transport.stream.sent[0]
    transport.stream.receiver.lost("gone")
    await sent_again(transport)
    again = transport.stream.sent[0]
    assert (again.client_id, again.sequence) == (first.client_id, first.sequence)
    assert list(again.operations) == list(first.operations)
    transport.stream.answer()
    await asyncio.gather(*calls)
    assert engine.under_way == 0


async def test_lost_reads_go_back_to_the_queue(engine: Engine, transport: ListTransport) -> None:
    """Those that somebody still waits for."""
    client = AsyncClient(engine)
    calls = [asyncio.ensure_future(client.get(b"%d" % i)) for i in range(3)]
    await turns()
    calls[0].cancel()
    transport.stream.receiver.lost("gone")
    await sent_again(transport)
    assert [operation[1] for operation in transport.stream.sent[0].operations] == [b"1", b"2"]
    transport.stream.answer(value=b"v")
    await asyncio.gather(*calls, return_exceptions=True)
    assert engine.under_way == 0


async def test_calls_beyond_the_bounds_wait_one_by_one(engine: Engine, transport: ListTransport) -> None:
    """Eight may be under way here."""
    client = AsyncClient(engine)
    calls = [asyncio.ensure_future(client.put(b"%d" % i, b"v")) for i in range(20)]
    await turns()
    assert engine.under_way == 8
    while not all(call.done() for call in calls):
        await turns()
        assert engine.under_way <= 8
        if transport.stream.sent:
            transport.stream.answer()
    assert len({call.result() for call in calls}) == 20
    assert engine.under_way == 0


async def test_calls_of_the_turn_in_which_the_client_closes_are_told(engine: Engine, transport: ListTransport) -> None:
    """Nothing was done; later ones are told at once."""
    client = AsyncClient(engine)
    calls = [asyncio.ensure_future(client.put(b"%d" % i, b"v")) for i in range(3)]
    calls += [asyncio.ensure_future(client.put(b"late", b"v", timeout=2.0))]
    await asyncio.sleep(0)
    await client.close()
    for told in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(told, UnavailableError)
    assert not transport.streams
    with pytest.raises(ClientClosedError):
        await client.put(b"k", b"v")


async def test_each_call_has_its_own_time_out(engine: Engine, transport: ListTransport) -> None:
    """One that is short does not shorten the others'."""
    client = AsyncClient(engine)
    calls = [asyncio.ensure_future(client.get(b"%d" % i, timeout=t)) for i, t in enumerate((5.0, 0.05, 5.0))]
    await asyncio.sleep(0.1)
    assert [call.done() for call in calls] == [False, True, False]
    assert isinstance(calls[1].exception(), UnavailableError)
    while transport.stream.sent:
        transport.stream.answer(value=b"v")
    await asyncio.gather(calls[0], calls[2])
    assert engine.under_way == 0
