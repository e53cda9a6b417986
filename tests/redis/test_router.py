"""The router's Redis door over fake nodes: the real protocol on real sockets on both sides."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator

import pytest

from kvcommon.clock import SystemClock
from kvcommon.slotmap import SlotMap
from kvresp import errors, replies
from kvrouter.redis.door import Limits, RouterDoor
from kvrouter.redis.replies import ReplySplitter
from tests.redis.fake_nodes import FakeCluster, done_then_dropped, dropped, refused, silent
from tests.redis.notation import command

OK, DOWN, MOVED = b"+OK\r\n", b"-CLUSTERDOWN no leader\r\n", b"-MOVED 5 127.0.0.1:1\r\n"
UNKNOWN = replies.error(errors.UNKNOWN_OUTCOME)
A, B = b"a", b"b"  # of partitions 1 and 0


class Client:
    """A connection that shows raw replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._splitter = ReplySplitter()
        self._replies: list[bytes] = []

    @classmethod
    async def connect(cls, port: int) -> "Client":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def send(self, *commands: bytes) -> None:
        """Commands, each with its arguments behind spaces, in one write."""
        self._writer.write(b"".join(command(*text.split()) for text in commands))

    async def replies(self, count: int) -> list[bytes]:
        async with asyncio.timeout(20):
            while len(self._replies) < count:
                data = await self._reader.read(1 << 16)
                assert data, f"the connection ended after {self._replies}"
                self._replies += self._splitter.feed(data)
        got, self._replies = self._replies[:count], self._replies[count:]
        return got

    async def call(self, text: bytes) -> bytes:
        self.send(text)
        return (await self.replies(1))[0]

    async def ended(self) -> bool:
        async with asyncio.timeout(20):
            try:
                return await self._reader.read(1) == b""
            except ConnectionResetError:
                return True

    def say_no_more(self) -> None:
        self._writer.write_eof()

    def reset(self) -> None:
        """End as a killed process on a dead machine does, not as one that has said all."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


class Scene:
    """Two partitions of two nodes each, and a router."""

    def __init__(self) -> None:
        self.cluster = FakeCluster(2)
        self.door = RouterDoor(asyncio.get_running_loop(), SystemClock())
        self.port = 0

    async def begin(self) -> None:
        await self.cluster.start()
        await self.open()

    async def open(self, limits: Limits | None = None) -> None:
        """Open the door, once more if it is open already."""
        if self.port:
            await self.door.drain(0)
            self.door = RouterDoor(asyncio.get_running_loop(), SystemClock(), limits)
        self.port = await self.door.start("127.0.0.1", 0)
        self.tell()

    def tell(self) -> None:
        """Coordination says what there is."""
        self.door.view_changed(self.cluster.view())

    def lead(self, partition: int, number: int | None) -> None:
        """Another leader."""
        self.cluster.leaders[partition] = number
        self.tell()

    async def end(self) -> None:
        await self.door.drain(0)
        await self.cluster.stop()

    async def client(self) -> Client:
        return await Client.connect(self.port)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    await scene.begin()
    yield scene
    await scene.end()


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(value), value)


async def test_replies_come_in_the_order_of_the_commands(scene: Scene) -> None:
    """Whichever partition answers first, and whatever is answered by the router itself."""
    client = await scene.client()

    client.send(b"SET a 1", b"SET b 2", b"PING", b"GET a", b"GET b", b"MGET b a c", b"ECHO x", b"NOSUCH", b"DBSIZE")

    assert await client.replies(9) == [
        OK,
        OK,
        b"+PONG\r\n",
        bulk(b"1"),
        bulk(b"2"),
        b"*3\r\n$1\r\n2\r\n$1\r\n1\r\n$-1\r\n",
        bulk(b"x"),
        b"-ERR unknown command 'NOSUCH', with args beginning with: \r\n",
        b":2\r\n",
    ]
    assert scene.cluster.nodes[scene.cluster.partition_of(A)][0].values == {A: b"1"}


async def test_many_clients_share_few_connections(scene: Scene) -> None:
    """Each gets its own replies."""
    clients = [await scene.client() for _ in range(30)]
    for i, client in enumerate(clients):
        client.send(b"SET k%d %d" % (i, i), b"GET k%d" % i)

    assert [await client.replies(2) for client in clients] == [[OK, bulk(b"%d" % i)] for i in range(30)]
    assert sum(len(node.connections) for nodes in scene.cluster.nodes.values() for node in nodes) <= 4


@pytest.mark.parametrize(
    "refusal", [DOWN, MOVED, b"-TRYAGAIN x\r\n", b"-ASK 5 h:1\r\n", b"-LOADING x\r\n", b"-NOREPLICAS x\r\n"]
)
async def test_a_refused_command_is_sent_again(scene: Scene, refusal: bytes) -> None:
    """To whoever leads by then; the client only sees that it took longer."""
    client = await scene.client()
    scene.cluster.leader_of(A).faults += [refused(refusal)] * 4

    client.send(b"SET a 1", b"INCR a")

    assert await client.replies(2) == [OK, b":2\r\n"]


async def test_commands_wait_for_a_leader(scene: Scene) -> None:
    """In their order, while other partitions answer."""
    client, other = await scene.client(), await scene.client()
    partition = scene.cluster.partition_of(A)
    await scene.cluster.nodes[partition][0].stop()
    scene.lead(partition, None)

    client.send(b"SET a 1", b"APPEND a 2", b"APPEND a 3", b"GET a")
    assert await other.call(b"SET b 1") == OK
    scene.lead(partition, 1)

    assert await client.replies(4) == [OK, b":2\r\n", b":3\r\n", bulk(b"123")]


async def test_a_leader_that_dies_leaves_writes_unknown_and_reads_are_repeated(scene: Scene) -> None:
    """The write is not sent again: it may have been done. What was not sent yet goes to the next leader."""
    client = await scene.client()
    await client.call(b"SET a 0")
    partition = scene.cluster.partition_of(A)
    first, second = scene.cluster.nodes[partition]
    first.faults += [done_then_dropped]

    client.send(b"INCR a", b"GET {a}other", b"INCR {a}other")
    got = await client.replies(1)
    await first.stop()
    scene.lead(partition, 1)
    got += await client.replies(2)
    client.send(b"GET a")
    got += await client.replies(1)

    assert got == [UNKNOWN, b"-TRYAGAIN" + got[1].removeprefix(b"-TRYAGAIN"), UNKNOWN, bulk(b"1")]
    assert second.received == [[b"GET", b"a"]]


async def test_a_read_is_repeated_when_its_connection_ends(scene: Scene) -> None:
    """Reads change nothing."""
    client = await scene.client()
    await client.call(b"SET a 1")
    scene.cluster.leader_of(A).faults += [dropped, dropped]

    assert await client.call(b"GET a") == bulk(b"1")


async def test_nothing_goes_to_the_next_leader_before_the_last_one_has_answered(scene: Scene) -> None:
    """Or its time is up, and then the write is unknown."""
    client = await scene.client()
    partition = scene.cluster.partition_of(A)
    first, second = scene.cluster.nodes[partition]
    first.faults += [silent]
    client.send(b"SET a 1")
    await first.wait_received(1)

    scene.lead(partition, 1)
    client.send(b"SET a 2")

    assert await client.replies(2) == [UNKNOWN, OK]
    assert second.received == [[b"SET", b"a", b"2"]]


async def test_a_deadline_says_whether_the_command_may_be_done(scene: Scene) -> None:
    """Never sent: certainly not. Under way: a write may be. The connection goes on."""
    await scene.open(Limits(deadline=0.3))
    client = await scene.client()
    scene.lead(scene.cluster.partition_of(A), None)
    scene.cluster.leader_of(B).faults += [silent, silent]

    client.send(b"SET a 1", b"SET b 1", b"GET b")
    got = await client.replies(3)

    assert got[0].startswith(b"-CLUSTERDOWN Not done: no leader")
    assert got[1] == UNKNOWN
    assert got[2].startswith(b"-CLUSTERDOWN The leader did not reply")
    scene.lead(scene.cluster.partition_of(A), 1)
    assert await client.call(b"GET a") == b"$-1\r\n"


async def test_a_connection_that_went_silent_is_given_up(scene: Scene) -> None:
    """A firewall may have forgotten it: the next one is a new one."""
    await scene.open(Limits(deadline=0.3))
    client = await scene.client()
    node = scene.cluster.leader_of(A)
    node.faults += [silent]
    assert (await client.call(b"GET a")).startswith(b"-CLUSTERDOWN The leader did not reply")

    await node.wait_ended()

    assert await client.call(b"SET a 1") == OK


async def test_a_node_that_says_why_it_refuses_is_quoted_at_the_deadline(scene: Scene) -> None:
    """Fewer replicas than it takes are waited for as long."""
    await scene.open(Limits(deadline=0.3))
    client = await scene.client()
    scene.cluster.leader_of(A).faults += [refused(b"-NOREPLICAS Not enough good replicas to write.\r\n")] * 1000

    assert await client.call(b"SET a 1") == b"-NOREPLICAS Not enough good replicas to write.\r\n"
    assert len(scene.cluster.leader_of(A).received) > 1


async def test_a_map_that_changes_takes_commands_to_the_slots_owner(scene: Scene) -> None:
    """Those refused by the last owner, too."""
    client = await scene.client()
    was = scene.cluster.partition_of(A)
    now = 1 - was
    scene.cluster.leader_of(A).faults += [refused(MOVED)] * 100
    client.send(b"SET a 1")
    await scene.cluster.leader_of(A).wait_received(1)

    scene.cluster.slot_map = SlotMap.of_ranges(2, [(0, 16383, now)])
    scene.tell()
    client.send(b"GET a")

    assert await client.replies(2) == [OK, bulk(b"1")]
    assert scene.cluster.nodes[now][0].values == {A: b"1"}


async def test_keys_of_several_slots(scene: Scene) -> None:
    """Split where that means the same, refused where it does not."""
    client = await scene.client()

    assert await client.call(b"MSET a 1 b 2 c 3") == OK
    assert await client.call(b"EXISTS a b c d a") == b":4\r\n"
    assert await client.call(b"MSETNX x 1 y 2") == replies.error(errors.CROSS_SLOT)
    assert await client.call(b"RENAME a b") == replies.error(errors.CROSS_SLOT)
    assert await client.call(b"MSET a 1 b") == b"-ERR wrong number of arguments for 'mset' command\r\n"
    assert await client.call(b"DEL a b c d") == b":3\r\n"


async def test_a_split_write_of_which_a_part_is_unknown_is_unknown(scene: Scene) -> None:
    """The other part was done."""
    client = await scene.client()
    scene.cluster.leader_of(A).faults += [dropped]

    assert await client.call(b"MSET a 1 b 2") == UNKNOWN
    assert await client.call(b"GET b") == bulk(b"2")


async def test_scan_goes_through_all_partitions(scene: Scene) -> None:
    """Every key once."""
    client = await scene.client()
    keys = [b"k%d" % i for i in range(40)]
    client.send(*(b"SET %s 1" % key for key in keys))
    await client.replies(40)

    seen, cursor = [], b"0"
    while True:
        _, length, rest = (await client.call(b"SCAN %s COUNT 7 MATCH k*" % cursor)).split(b"\r\n", 2)
        cursor, rest = rest[: int(length[1:])], rest[int(length[1:]) + 2 :]
        seen += rest.split(b"\r\n")[2::2]
        if cursor == b"0":
            break

    assert sorted(seen) == sorted(keys)
    assert await client.call(b"SCAN 77") == replies.error(errors.INVALID_CURSOR)


async def test_protocol_versions_do_not_mix(scene: Scene) -> None:
    """What comes before HELLO is answered in the old one, also when all comes at once."""
    client, other = await scene.client(), await scene.client()

    client.send(b"GET a", b"HELLO 3", b"GET a", b"MGET a b", b"RESET", b"GET a")
    got = await client.replies(6)

    assert got[0] == b"$-1\r\n"
    assert got[1].startswith(b"%7\r\n")
    assert got[2:] == [b"_\r\n", b"*2\r\n_\r\n_\r\n", b"+RESET\r\n", b"$-1\r\n"]
    assert await other.call(b"GET a") == b"$-1\r\n"


async def test_too_many_clients_are_refused(scene: Scene) -> None:
    """In Redis's words."""
    await scene.open(Limits(connections=1))
    client = await scene.client()
    assert await client.call(b"PING") == b"+PONG\r\n"

    refused_client = await scene.client()

    assert await refused_client.replies(1) == [b"-ERR max number of clients reached\r\n"]
    assert await refused_client.ended()
    assert await client.call(b"PING") == b"+PONG\r\n"


async def test_a_client_that_goes_leaves_nothing_behind(scene: Scene) -> None:
    """Its waiting commands are forgotten, and its replies dropped."""
    client, other = await scene.client(), await scene.client()
    partition = scene.cluster.partition_of(A)
    scene.lead(partition, None)
    client.send(b"SET a 1")
    assert await other.call(b"SET b 1") == OK
    assert scene.door.held_bytes > 0

    client.reset()
    async with asyncio.timeout(20):
        while len(scene.door.connections) > 1:
            await other.call(b"PING")
    scene.lead(partition, 1)

    assert await other.call(b"GET a") == b"$-1\r\n"
    assert scene.door.held_bytes == 0


async def test_a_client_that_says_no_more_still_has_its_commands_done(scene: Scene) -> None:
    """Also when they have to wait for a leader."""
    client = await scene.client()
    partition = scene.cluster.partition_of(A)
    scene.lead(partition, None)
    client.send(b"SET a 1", b"GET a")

    client.say_no_more()
    assert await (await scene.client()).call(b"SET b 1") == OK
    scene.lead(partition, 1)

    assert await client.replies(2) == [OK, bulk(b"1")]
    assert await client.ended()


async def test_who_sends_much_without_reading_is_held_back(scene: Scene) -> None:
    """And gets every reply in the end."""
    client = await scene.client()
    value = b"x" * 100_000
    await client.call(b"SET a " + value)

    client.send(*[b"GET a"] * 500)

    assert await client.replies(500) == [bulk(value)] * 500
    assert scene.door.held_bytes == 0


async def test_draining_answers_what_is_under_way(scene: Scene) -> None:
    """And then ends the connections."""
    client = await scene.client()
    partition = scene.cluster.partition_of(A)
    scene.lead(partition, None)
    client.send(b"SET a 1")
    assert await (await scene.client()).call(b"PING") == b"+PONG\r\n"

    draining = asyncio.create_task(scene.door.drain(10))
    scene.lead(partition, 1)

    assert await client.replies(1) == [OK]
    await draining
    assert await client.ended()


async def test_before_the_map_is_known_commands_are_refused(scene: Scene) -> None:
    """In words that clients try again on."""
    door = RouterDoor(asyncio.get_running_loop(), SystemClock())
    client = await Client.connect(await door.start("127.0.0.1", 0))

    assert await client.call(b"PING") == b"+PONG\r\n"
    for text in (b"GET a", b"DBSIZE", b"SCAN 0"):
        assert (await client.call(text)).startswith(b"-CLUSTERDOWN ")
    await door.drain(0)
