"""Nodes' Redis ports for tests of what lies above them: the real protocol on real sockets, a dict for a store.

Nodes of one partition share what they know, as replicas do. Faults are queued for a node's next commands.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

from kvcommon.slotmap import SlotMap
from kvcommon.slots import slot_of
from kvcoord.contract import MemberInfo, PartitionState, ReplicaId, RunId, Versioned
from kvcoord.view import ClusterView
from kvresp import replies
from kvresp.commands import command_of
from kvresp.errors import CommandError
from kvresp.meaning import plan_of
from kvresp.reader import CommandReader
from kvresp.scan import parse_scan

Fault = Callable[["FakeNode", list[bytes]], bytes | None]
"""Instead of doing a command: the raw reply, or None for none at all."""


class Drop(Exception):  # noqa: N818 - it is not an error but an order
    """Raised by a fault: end the connection."""


def refused(reply: bytes) -> Fault:
    """The command is not done."""
    return lambda _node, _args: reply


def dropped(node: "FakeNode", args: list[bytes]) -> bytes | None:
    """The connection ends; the command was not done."""
    raise Drop


def done_then_dropped(node: "FakeNode", args: list[bytes]) -> bytes | None:
    """The connection ends; the command was done."""
    node.execute(args, 2)
    raise Drop


def silent(node: "FakeNode", args: list[bytes]) -> bytes | None:
    """The command was not done, and nobody says so."""
    return None


def done(node: "FakeNode", args: list[bytes]) -> bytes | None:
    """No fault: as always."""
    return node.execute(args, 2)


class FakeNode:
    """One node; all keys of a partition are in `values`."""

    def __init__(self, values: dict[bytes, bytes]) -> None:
        self.values = values
        self.faults: deque[Fault] = deque()
        self.received: list[list[bytes]] = []
        self._expected: list[tuple[int, asyncio.Event]] = []
        self._ended = asyncio.Event()  # a connection has, since the node was started
        self.port = 0
        self.connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._ended.clear()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """As a killed process: connections break."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.abort()
        while self.connections:  # noqa: ASYNC110 - a few turns of the loop
            await asyncio.sleep(0)

    async def wait_received(self, count: int) -> None:
        """Until so many commands have come, answered or not."""
        arrived = asyncio.Event()
        self._expected.append((count, arrived))
        self._tell()
        await arrived.wait()

    async def wait_ended(self) -> None:
        """Until one of the connections to it has ended."""
        await self._ended.wait()

    def ended(self, connection: "_Connection") -> None:
        self.connections.discard(connection)
        self._ended.set()

    def handle(self, args: list[bytes], protocol: int) -> bytes | None:
        self.received.append(args)
        self._tell()
        if self.faults:
            return self.faults.popleft()(self, args)
        return self.execute(args, protocol)

    def _tell(self) -> None:
        for count, arrived in self._expected:
            if len(self.received) >= count:
                arrived.set()

    def execute(self, args: list[bytes], protocol: int) -> bytes:
        try:
            command = command_of(args)
            if command.name == "dbsize":
                return replies.integer(len(self.values))
            if command.name == "scan":
                return self._scan(args, protocol)
            plan = plan_of(command, args)
        except CommandError as error:
            return replies.error(str(error))
        if len({slot_of(key) for key in plan.keys}) > 1:
            return replies.error("CROSSSLOT Keys in request don't hash to the same slot")
        writes, reply = plan.decide(self.values.get)
        for key, value in writes:
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value
        return replies.encode(reply, protocol)

    def _scan(self, args: list[bytes], protocol: int) -> bytes:
        scan = parse_scan(args)
        keys = sorted(self.values)
        following = scan.cursor + scan.count
        shown = scan.shown(keys[scan.cursor : following])
        return replies.encode([b"%d" % (following if following < len(keys) else 0), shown], protocol)


class _Connection(asyncio.Protocol):
    def __init__(self, node: FakeNode) -> None:
        self._node = node
        self._reader = CommandReader()
        self._protocol = 2
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._node.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._node.ended(self)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        for args in self._reader.feed(data):
            if args == [b"HELLO", b"3"]:
                self._protocol = 3
                self._transport.write(b"%0\r\n")
                continue
            try:
                reply = self._node.handle(args, self._protocol)
            except Drop:
                self._transport.close()
                return
            if reply is not None:
                self._transport.write(reply)


class FakeCluster:
    """Partitions with two nodes each, the first of which leads, and what coordination says of them."""

    def __init__(self, partitions: int) -> None:
        self.slot_map = SlotMap.even(partitions)
        self.nodes: dict[int, list[FakeNode]] = {}
        for partition in range(partitions):
            values: dict[bytes, bytes] = {}
            self.nodes[partition] = [FakeNode(values), FakeNode(values)]
        self.leaders: dict[int, int | None] = dict.fromkeys(range(partitions), 0)

    async def start(self) -> None:
        for nodes in self.nodes.values():
            for node in nodes:
                await node.start()

    async def stop(self) -> None:
        for nodes in self.nodes.values():
            for node in nodes:
                await node.stop()

    def partition_of(self, key: bytes) -> int:
        return self.slot_map.owners[slot_of(key)]

    def leader_of(self, key: bytes) -> FakeNode:
        number = self.leaders[self.partition_of(key)]
        assert number is not None, "nobody leads"
        return self.nodes[self.partition_of(key)][number]

    def view(self) -> ClusterView:
        """As a watch shows it."""
        states, members = {}, {}
        for partition, nodes in self.nodes.items():
            pods = [f"c-p{partition}-{i}" for i in range(len(nodes))]
            replicas = tuple(ReplicaId(pod, "i") for pod in pods)
            number = self.leaders[partition]
            leader = None if number is None else RunId(replicas[number], "r")
            states[partition] = Versioned(PartitionState(1, leader, replicas, tuple(pods), 1), 1)
            for pod, replica, node in zip(pods, replicas, nodes, strict=True):
                members[pod] = MemberInfo(pod, partition, replica, "r", "g:1", "r:1", "h:1", redis_address=node.address)
        return ClusterView(None, self.slot_map, states, members, frozenset(members))
