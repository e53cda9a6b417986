"""The pipeline door's bounds: what one client may have under way, and what is not read of it meanwhile."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from kvcommon.slotmap import SlotMap
from kvcoord.view import ClusterView
from kvnode.doors.answers import Errors
from kvnode.doors.pipeline import MAX_UNANSWERED, PipelineDoor, _Connection
from kvproto import pipeline
from kvproto.v1 import kv_pb2
from kvstore.errors import CorruptionError
from tests.unit.kvnode.fake_host import FakeHost, make_service

ANSWER = pipeline.encode_answer(1, [(5, b"", None)])
REQUEST = pipeline.encode_request(pipeline.Request([(1, b"k", b"", None)], id=1))


class Door:
    """Takes requests and answers none of them by itself."""

    def __init__(self) -> None:
        self.connections: set[Any] = set()
        self.waiting: list[Callable[..., None]] = []

    def answer_one(self, _body: bytes) -> bytes | None:
        return None

    def submit(self, _request: pipeline.Request, _size: int, send: Callable[..., None]) -> None:
        self.waiting.append(send)


class Wire(asyncio.Transport):
    """Counts what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True
        self.closing = False
        self.written: list[bytes] = []

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.closing = True


def connected() -> tuple[_Connection, Door, Wire]:
    door, wire = Door(), Wire()
    connection = _Connection(cast("PipelineDoor", door))
    connection.connection_made(wire)
    connection.data_received(pipeline.HELLO_FRAME)
    return connection, door, wire


async def test_a_client_with_too_much_under_way_is_not_read_until_some_of_it_is_answered() -> None:
    """What is under way is bounded."""
    connection, door, wire = connected()
    connection.data_received(REQUEST * (MAX_UNANSWERED - 1))
    assert wire.reading
    connection.data_received(REQUEST)
    assert not wire.reading
    door.waiting.pop()(ANSWER, last=False)
    assert wire.reading
    assert wire.written == [pipeline.HELLO_FRAME, ANSWER]
    connection.connection_lost(None)


async def test_a_client_that_takes_no_answers_is_not_read_until_it_does() -> None:
    """Its answers would pile up in the node."""
    connection, door, wire = connected()
    connection.data_received(REQUEST * 3)
    connection.pause_writing()
    door.waiting.pop()(ANSWER, last=False)
    assert not wire.reading
    connection.resume_writing()
    assert wire.reading
    connection.connection_lost(None)


async def test_the_last_answer_ends_the_connection_once_it_is_out() -> None:
    """So the client learns why, and sends the rest elsewhere."""
    connection, door, wire = connected()
    connection.data_received(REQUEST)
    door.waiting.pop()(pipeline.frame(pipeline.END, b"why"), last=True)
    assert wire.closing
    connection.connection_lost(None)


async def test_answers_after_the_connection_ended_go_nowhere() -> None:
    """The request outlives its caller."""
    connection, door, wire = connected()
    connection.data_received(REQUEST)
    connection.connection_lost(None)
    door.waiting.pop()(ANSWER, last=False)
    assert wire.written == [pipeline.HELLO_FRAME]


def get(connection: _Connection, wire: Wire, key: bytes) -> pipeline.ResultTuple:
    """One linearizable Get by itself, which is answered at once."""
    wire.written.clear()
    request = pipeline.Request([(1, key, b"", None)], id=7, read_mode=1)
    connection.data_received(pipeline.encode_request(request))
    number, (result,) = pipeline.decode_answer(b"".join(wire.written)[6:])
    assert number == 7
    return result


def failure(result: pipeline.ResultTuple) -> int:
    """The code of its error."""
    assert result[2] is not None
    return result[2].code


async def test_a_get_by_itself_is_answered_as_one_of_a_batch(tmp_path: Path) -> None:
    """It goes a way of its own while all is well; whatever is in its way is told as always."""
    host, slot_map = FakeHost(tmp_path), [SlotMap.even(1)]
    service = make_service(host, lambda: slot_map[0])
    door = PipelineDoor(service, host.clock, Errors(cast("Any", SimpleNamespace(view=ClusterView())), 0))
    wire, connection = Wire(), _Connection(door)
    connection.connection_made(wire)
    connection.data_received(pipeline.HELLO_FRAME)
    put = pipeline.Request([(2, b"a{b}", b"value", None)], id=1, client_id=bytes(16), sequence=1)
    connection.data_received(pipeline.encode_request(put))
    await asyncio.sleep(0)
    assert failure(get(connection, wire, b"a{b}")) == kv_pb2.ERROR_CODE_NOT_FOUND
    host.commit()
    version, value, error = get(connection, wire, b"a{b}")
    assert (value, error) == (b"value", None)
    assert version
    assert failure(get(connection, wire, b"")) == kv_pb2.ERROR_CODE_INVALID_ARGUMENT
    slot_map[0] = SlotMap.of_ranges(2, [(0, 16383, 1)])
    assert failure(get(connection, wire, b"a{b}")) == kv_pb2.ERROR_CODE_MOVED
    slot_map[0] = SlotMap.even(1)
    lease, host.core.lease_until = host.core.lease_until, host.clock.now()
    assert failure(get(connection, wire, b"a{b}")) == kv_pb2.ERROR_CODE_UNAVAILABLE
    host.core.lease_until = lease

    def unreadable(_: object) -> None:
        raise CorruptionError("log", 0, "bits have turned")

    host.store.get = host.store.get_many = unreadable  # type: ignore[assignment, method-assign]
    assert failure(get(connection, wire, b"a{b}")) == kv_pb2.ERROR_CODE_UNAVAILABLE
    assert host.damages
    connection.connection_lost(None)
    host.store.close()
