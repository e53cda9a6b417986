"""What a single command at the Redis door costs, counted and not timed: function calls, as tests/unit/kvnode/test_cost.py has it."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from kvcommon.slotmap import SlotMap
from kvnode.core.types import Position
from kvnode.doors.redis import RedisDoor, RedisSettings
from kvnode.gathering import QUIET_TURNS
from kvresp.connection import Connection
from tests.redis.notation import command
from tests.support.calls import Calls
from tests.unit.kvnode.fake_host import FakeHost, make_service

CLIENTS = 64
GET_CALLS, FILE_GET_CALLS, SET_CALLS, COMMIT_CALLS = 23.0, 41.0, 25.5, 9.0


class Wire(asyncio.Transport):
    """Counts what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes += 1

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class Host(FakeHost):
    """One that doesn't unpack what is proposed."""

    def propose(self, data: bytes, first: int, last: int) -> None:
        self.store.append(data, trusted=True)
        self.core.end = Position(self.core.epoch, last)


class Node:
    """A door with many clients, on a node whose commits are made by hand; each client has a key."""

    def __init__(self, folder: Path) -> None:
        self.host = Host(folder)
        slot_map = SlotMap.even(1)
        self.service = make_service(self.host, lambda: slot_map)
        door = self.door = RedisDoor(
            cast("Any", self.host),
            self.service,
            view=lambda: cast("Any", None),
            clock=self.host.clock,
            number=lambda _: 0,
            settings=RedisSettings("c", "c-p0-0", durable=True),
        )
        self.wires, self.clients = [Wire() for _ in range(CLIENTS)], [Connection(door) for _ in range(CLIENTS)]
        for wire, client in zip(self.wires, self.clients, strict=True):
            client.connection_made(wire)
        keys = [b"key:%012d" % n for n in range(CLIENTS)]
        self.sets, self.gets = [command(b"SET", k, bytes(256)) for k in keys], [command(b"GET", k) for k in keys]

    def send(self, commands: list[bytes]) -> None:
        for client, data in zip(self.clients, commands, strict=True):
            client.data_received(data)
        self.door.turn()

    async def commit(self) -> None:
        """Of what was sent, once no more comes."""
        for _ in range(QUIET_TURNS + 1):
            await asyncio.sleep(0)
        self.host.commit()

    def close(self) -> None:
        for client in self.clients:
            client.connection_lost(None)
        self.host.store.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Callable[[], Node]]:
    """Made in the test, on its event loop."""
    made: list[Node] = []

    def make() -> Node:
        made.append(Node(tmp_path))
        return made[0]

    yield make
    made[0].close()


async def test_a_set_takes_few_calls(node: Callable[[], Node]) -> None:
    """One on each connection: until it is queued, and from there to the log and back; one write each for the reply."""
    one = node()
    one.send(one.sets)
    await one.commit()
    with Calls() as counted:
        one.send(one.sets)
    assert counted.count / CLIENTS < SET_CALLS
    with Calls() as counted:
        await one.commit()
    assert counted.count / CLIENTS < COMMIT_CALLS
    assert [wire.writes for wire in one.wires] == [2] * CLIENTS


async def test_a_get_takes_few_calls(node: Callable[[], Node]) -> None:
    """Of a value in the log's file, checksum verified; and of one that was read before."""
    one = node()
    one.send(one.sets)
    await one.commit()
    for most in (FILE_GET_CALLS, GET_CALLS):
        with Calls() as counted:
            one.send(one.gets)
        assert counted.count / CLIENTS < most
    assert [wire.writes for wire in one.wires] == [3] * CLIENTS
