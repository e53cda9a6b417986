"""What a call costs the application, counted and not timed: function calls, of Python and of C, from the task and back.

The event loop's own are among them. The bounds are what was counted when they were written, and a tenth more. Who raises
one says in the commit what it buys; docs/benchmarks.md has the times.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from kvclient import AsyncClient, Operation
from kvproto import pipeline
from tests.support.calls import Calls
from tests.unit.kvclient.list_transport import GivenSource, ListTransport, engine_over, turns

MANY = 64
BOUNDS = {"put": 81.0, "get": 81.0, "batch": 6.4}
BOUNDS_OF_ONE = {"put": 330, "get": 327}
VALUE = bytes(256)


async def calls_of(transport: ListTransport, asked: list[Coroutine[Any, Any, Any]]) -> int:
    """From the start of the tasks to their ends; without the server, with the frames."""
    counted = Calls()
    with counted:
        tasks = [asyncio.ensure_future(one) for one in asked]
        await turns(3)
        for request in transport.stream.sent:
            pipeline.encode_request(request)
    sent, transport.stream.sent = transport.stream.sent, []
    answers = []
    for request in sent:
        count = len(request.operations)
        versions, read = range(1, count + 1), request.operations[0][0] == 1
        answer = pipeline.encode_records(request.id, versions, [VALUE] * count)
        answers.append((answer if read else pipeline.encode_series(request.id, 1, count))[6:])
    with counted:
        for answer in answers:
            transport.stream.receiver.answered(*pipeline.decode_answer(answer))
        await asyncio.gather(*tasks)
    return counted.count


@pytest.mark.parametrize("what", BOUNDS)
async def test_an_operation_takes_few_calls(what: str) -> None:
    """Of 64 tasks at once, or one of 64 in a batch."""
    transport = ListTransport()
    engine = await engine_over(transport, GivenSource())
    client = AsyncClient(engine)
    keys = [b"%016d" % n for n in range(MANY)]
    operations = [Operation.put(key, VALUE) for key in keys]
    ways: dict[str, Callable[[], list[Coroutine[Any, Any, Any]]]] = {
        "put": lambda: [client.put(key, VALUE) for key in keys],
        "get": lambda: [client.get(key) for key in keys],
        "batch": lambda: [client.batch(operations)],
    }
    for _ in range(2):
        count = await calls_of(transport, ways[what]())
    await engine.close()
    assert count / MANY < BOUNDS[what]


@pytest.mark.parametrize("what", BOUNDS_OF_ONE)
async def test_one_operation_by_itself_takes_few_calls(what: str) -> None:
    """Of one task that waits for each answer; the turns of the loop are among them."""
    transport = ListTransport()
    engine = await engine_over(transport, GivenSource())
    client = AsyncClient(engine)
    for _ in range(2):
        count = await calls_of(transport, [client.put(b"k", VALUE) if what == "put" else client.get(b"k")])
    await engine.close()
    assert count < BOUNDS_OF_ONE[what]
