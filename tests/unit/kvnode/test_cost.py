"""What an operation costs, counted and not timed: function calls, and objects that stay.

The bounds are what was counted when they were written, and a tenth more. Who raises one says in the commit what it buys;
docs/benchmarks.md has the times.
"""

import asyncio
import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from kvnode.core.types import Position
from kvnode.doors.answers import Errors
from kvnode.doors.pipeline import PipelineDoor, _Connection
from kvproto import pipeline
from kvproto.v1 import kv_pb2
from tests.support.calls import Calls
from tests.unit.kvnode.fake_host import FakeHost, make_service

GET, PUT = int(kv_pb2.OPERATION_KIND_GET), int(kv_pb2.OPERATION_KIND_PUT)
BATCH = 64
PUT_CALLS, FILE_GET_CALLS, GET_CALLS, KEY_BLOCKS = 6.2, 25.5, 9.1, 2.4
ONE_GET_CALLS = 40
VALUE = bytes(256)


class Wire(asyncio.Transport):
    """Keeps the newest answer."""

    written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written = bytes(data)

    def is_closing(self) -> bool:
        return False


class Host(FakeHost):
    """One that doesn't unpack what is proposed."""

    def propose(self, data: bytes, first: int, last: int) -> None:
        self.store.append(data, trusted=True)
        self.core.end = Position(self.core.epoch, last)


class Node:
    """A pipeline connection to a node whose commits are made by hand."""

    def __init__(self, folder: Path) -> None:
        self.host = Host(folder)
        door = PipelineDoor(make_service(self.host), self.host.clock, Errors(cast("Any", None), 0))
        self.wire, self.connection = Wire(), _Connection(door)
        self.connection.connection_made(self.wire)
        self.connection.data_received(pipeline.HELLO_FRAME)
        self.sequence = 0

    def frame(self, kind: int, keys: list[bytes]) -> bytes:
        self.sequence += 1
        value = VALUE if kind == PUT else b""
        operations = [(kind, key, value, None) for key in keys]
        return pipeline.encode_request(
            pipeline.Request(operations, self.sequence, bytes(15) + b"x", self.sequence)
            if kind == PUT
            else pipeline.Request(operations, self.sequence)
        )

    async def put(self, data: bytes) -> None:
        self.connection.data_received(data)
        await asyncio.sleep(0)
        self.host.commit()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Callable[[], Node]]:
    """Made in the test, on its event loop."""
    made: list[Node] = []

    def make() -> Node:
        made.append(Node(tmp_path))
        return made[0]

    yield make
    made[0].connection.connection_lost(None)
    made[0].host.store.close()


def keys(first: int) -> list[bytes]:
    return [b"%016d" % n for n in range(first, first + BATCH)]


async def test_a_put_in_a_batch_takes_few_calls(node: Callable[[], Node]) -> None:
    """From the connection's bytes to the log and, once committed, back."""
    one = node()
    await one.put(one.frame(PUT, keys(0)))
    data = one.frame(PUT, keys(0))
    with Calls() as counted:
        await one.put(data)
    assert counted.count / BATCH < PUT_CALLS


async def test_a_get_in_a_batch_takes_few_calls(node: Callable[[], Node]) -> None:
    """Of a value in the log's file, checksum verified; and of one that was read before."""
    one = node()
    await one.put(one.frame(PUT, keys(0)))
    for most in (FILE_GET_CALLS, GET_CALLS):
        data = one.frame(GET, keys(0))
        with Calls() as counted:
            one.connection.data_received(data)
        assert counted.count / BATCH < most
        assert len(one.wire.written) > BATCH * len(VALUE)


async def test_a_get_by_itself_takes_few_calls(node: Callable[[], Node]) -> None:
    """From the connection's bytes to the answer, which is written at once."""
    one = node()
    await one.put(one.frame(PUT, keys(0)))
    one.connection.data_received(one.frame(GET, keys(0)[:1]))
    data = one.frame(GET, keys(0)[:1])
    with Calls() as counted:
        one.connection.data_received(data)
    assert counted.count < ONE_GET_CALLS
    assert len(one.wire.written) > len(VALUE)


async def test_a_key_leaves_few_objects(node: Callable[[], Node]) -> None:
    """Its bytes and its place in the index; nothing of the request, the batch or the answer."""
    one = node()
    frames = [one.frame(PUT, keys(n * BATCH)) for n in range(30)]
    for data in frames[:10]:
        await one.put(data)
    gc.collect()
    before = sys.getallocatedblocks()
    for data in frames[10:]:
        await one.put(data)
    gc.collect()
    assert (sys.getallocatedblocks() - before) / (20 * BATCH) < KEY_BLOCKS
