"""The Redis door on a node whose commits are made by hand: replies, redirections, order, unknown outcomes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import hiredis
import pytest

from kvcommon.slotmap import SlotMap
from kvcommon.slots import slot_of
from kvcoord.contract import MemberInfo, PartitionState, ReplicaId, RunId, Versioned
from kvcoord.view import ClusterView
from kvnode.core.types import Role
from kvnode.doors.redis import RedisDoor, RedisSettings
from kvnode.doors.redis_cluster import node_id
from kvnode.shell.host import Host
from kvresp import errors
from kvresp.connection import Connection
from tests.redis.notation import command
from tests.support.fake_transport import FakeTransport
from tests.unit.kvnode.fake_host import ME, STATE, FakeHost, make_service
from tests.unit.kvnode.test_service import turn


def member(pod: str, partition: int, run: str = "r1") -> MemberInfo:
    """Its Redis address is pod:6379."""
    return MemberInfo(
        pod,
        partition,
        ReplicaId(pod, "1"),
        run,
        f"{pod}:7400",
        f"{pod}:7401",
        f"{pod}:7480",
        redis_address=f"{pod}:6379",
    )


def led_by(pod: str, epoch: int = 1) -> Versioned[PartitionState]:
    leader = RunId(ReplicaId(pod, "1"), "r1")
    return Versioned(PartitionState(epoch, leader, (leader.replica,), (pod,), 1), 1)


VIEW = ClusterView(
    slot_map=SlotMap.even(2),
    partitions={0: led_by("c-p0-0"), 1: led_by("c-p1-0", 3)},
    members={m.pod: m for m in (member("c-p0-0", 0), member("c-p0-1", 0), member("c-p1-0", 1))},
    connected=frozenset({"c-p0-0", "c-p0-1", "c-p1-0"}),
)
HERE, THERE = b"a{b}", b"a{x}"  # slots below and above the middle


class World:
    """A door, what it stands on, and a client of it."""

    def __init__(self, directory: Path) -> None:
        self.host = FakeHost(directory)
        self.view = VIEW
        self.moving: dict[int, int] = {}
        self.service = make_service(self.host, lambda: self.view.slot_map)
        self.door = RedisDoor(
            cast("Host", self.host),
            self.service,
            view=lambda: self.view,
            clock=self.host.clock,
            number=lambda n: n // 2,
            settings=RedisSettings("c", "c-p0-0", durable=True),
        )
        self.client = Client(self.door)

    def follow(self, leader: str = "c-p0-1") -> None:
        """Another leads now."""
        core = self.host.core
        core.role, core.accepting, core.lease_until = Role.FOLLOWER, False, float("-inf")
        self.view = replace(self.view, partitions={**self.view.partitions, 0: led_by(leader, 2)})


class Client:
    """Sends lines, reads replies."""

    def __init__(self, door: RedisDoor) -> None:
        self._door = door
        self.transport = FakeTransport()
        self.transport.connect(Connection(door))
        self._reader = hiredis.Reader(errors=None)

    def send(self, *lines: str | bytes) -> None:
        data = b"".join((x if isinstance(x, bytes) else x.encode()) + b"\r\n" for x in lines)
        self.transport.protocol.data_received(data)
        self._door.turn()

    def arrive(self, *words: bytes) -> None:
        """A command as libraries send it; what others send in this turn of the loop is done together with it."""
        self.transport.protocol.data_received(command(*words))

    def replies(self) -> list[object]:
        """All that has come; errors as `-text`."""
        self._reader.feed(self.transport.take())
        found = []
        while self._reader.has_data():
            reply = self._reader.gets()
            found.append(f"-{reply}" if isinstance(reply, Exception) else reply)
        return found

    def ask(self, line: str | bytes) -> object:
        """The reply to a line that is answered at once."""
        self.send(line)
        (reply,) = self.replies()
        return reply


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "data")
    yield world
    world.host.store.close()


async def write(world: World, *lines: str) -> list[object]:
    """The replies to lines, committed."""
    world.client.send(*lines)
    await turn()
    world.host.commit()
    await turn()
    return world.client.replies()


async def test_a_set_is_answered_when_it_is_committed(world: World) -> None:
    """A GET sees it from then on."""
    other = Client(world.door)
    world.client.send("SET a{b} 1")
    await turn()
    assert world.client.replies() == []
    assert other.ask("GET a{b}") is None
    world.host.commit()
    await turn()
    assert world.client.replies() == [b"OK"]
    assert other.ask("GET a{b}") == b"1"


async def test_a_pipeline_sees_its_own_writes_and_is_answered_in_order(world: World) -> None:
    """One batch of the log for the SETs in a row; reads behind a write wait for it."""
    replies = await write(
        world, "GET a{b}", "SET a{b} 1", "SET b{b} 2", "GET a{b}", "APPEND a{b} 0", "GET a{b}", "PING", "INCR b{b}", "DEL a{b}", "MGET a{b} b{b}"
    )  # fmt: skip
    assert replies == [None, b"OK", b"OK", b"1", 2, b"10", b"PONG", 3, 1, [None, b"3"]]
    assert len(world.host.proposed) == 1


async def test_a_command_without_keys_waits_for_writes_before_it(world: World) -> None:
    """DBSIZE, SCAN and WAIT tell of what is committed."""
    world.client.send("SET a{b} 1", "DBSIZE", "SCAN 0", "WAIT 1 0", "WAITAOF 1 1 0")
    await turn()
    assert world.client.replies() == []
    world.host.commit()
    await turn()
    assert world.client.replies() == [b"OK", 1, [b"0", [b"a{b}"]], 0, [1, 0]]
    assert world.door.counts.of["dbsize"].calls == 1


def arrive(clients: Sequence[Client], *commands: tuple[bytes, ...]) -> None:
    """A command from each client, in one turn of the loop."""
    for client, words in zip(clients, commands, strict=True):
        client.arrive(*words)


async def test_commands_of_one_turn(world: World) -> None:
    """Plain sets in one batch, gets in one pass, whatever else comes between them."""
    clients = [Client(world.door) for _ in range(5)]
    arrive(
        clients,
        (b"SET", b"a{b}", b"1"),
        (b"get", b"a{b}"),
        (b"set", b"c{b}", b"2"),
        (b"SET", b"d{b}", b"3", b"NX"),
        (b"ECHO", b"x"),
    )
    await turn()
    assert [client.replies() for client in clients] == [[], [None], [], [], [b"x"]]
    world.host.commit()
    await turn()
    assert [client.replies() for client in clients] == [[b"OK"], [], [b"OK"], [b"OK"], []]
    assert [[r.key for r in records] for records in world.host.proposed] == [[b"d{b}", b"a{b}", b"c{b}"]]
    arrive(clients, *((b"GET", key) for key in (b"a{b}", b"c{b}", b"d{b}", b"e{b}", b"a{b}")))
    await turn()
    assert [client.replies() for client in clients] == [[b"1"], [b"2"], [b"3"], [None], [b"1"]]
    assert world.door.counts.of["get"].calls == 6
    assert world.door.counts.of["set"].calls == 3


async def test_one_of_a_turn_that_goes_elsewhere_costs_the_others_nothing(world: World) -> None:
    """Each is told its own."""
    clients = [Client(world.door) for _ in range(4)]
    arrive(clients, (b"SET", HERE, b"1"), (b"SET", THERE, b"2"), (b"GET", HERE), (b"GET", THERE))
    await turn()
    world.host.commit()
    await turn()
    moved = f"-MOVED {slot_of(THERE)} c-p1-0:6379"
    assert [client.replies() for client in clients] == [[b"OK"], [moved], [None], [moved]]
    assert [world.door.counts.of[n].calls for n in ("get", "set")] == [2, 2]


async def test_sets_of_one_turn_whose_leader_steps_down(world: World) -> None:
    """Each is told that its outcome is unknown, in its place; what it sent meanwhile follows."""
    clients = [Client(world.door) for _ in range(3)]
    arrive(clients, *((b"SET", key, b"1") for key in (b"a{b}", b"c{b}", b"d{b}")))
    await turn()
    clients[1].send("SET c{b} 2", "PING")
    world.follow()
    world.service.role_changed(Role.FOLLOWER, 2)
    await turn()
    unknown = f"-{errors.UNKNOWN_OUTCOME}"
    moved = f"-MOVED {slot_of(HERE)} c-p0-1:6379"
    assert [client.replies() for client in clients] == [[unknown], [unknown, moved, b"PONG"], [unknown]]


async def test_gets_of_one_turn_without_a_lease(world: World) -> None:
    """No leader without a lease shows anything; after READONLY a follower answers as before."""
    clients = [Client(world.door) for _ in range(3)]
    await write(world, "SET a{b} 1")
    clients[2].send("READONLY")
    assert clients[2].replies() == [b"OK"]
    world.host.core.lease_until = world.host.clock.now()
    world.host.core.fresh_at = world.host.clock.now()
    arrive(clients, *([(b"GET", b"a{b}")] * 3))
    await turn()
    down = "-CLUSTERDOWN the leader can't serve reads right now; try again"
    assert [client.replies() for client in clients] == [[down], [down], [b"1"]]


async def test_another_partitions_slot_is_moved(world: World) -> None:
    """To its leader, for reads and writes."""
    slot = slot_of(THERE)
    moved = f"-MOVED {slot} c-p1-0:6379"
    assert world.client.ask(b"GET " + THERE) == moved
    world.client.send(b"SET " + THERE + b" 1", b"INCR " + THERE, b"SET " + THERE + b" 1 NX", b"EXISTS " + THERE)
    await turn()
    assert world.client.replies() == [moved] * 4


async def test_a_follower_sends_to_the_leader(world: World) -> None:
    """Reads too, unless the client said READONLY."""
    world.follow()
    moved = f"-MOVED {slot_of(HERE)} c-p0-1:6379"
    assert world.client.ask(b"GET " + HERE) == moved
    world.client.send(b"SET " + HERE + b" 1")
    await turn()
    assert world.client.replies() == [moved]


async def test_after_readonly_a_follower_answers_while_it_is_fresh(world: World) -> None:
    """Past the bounded lag it sends to the leader; writes always go there."""
    await write(world, "SET a{b} 1")
    world.follow()
    core, clock = world.host.core, world.host.clock
    core.fresh_at = clock.time - 0.5
    moved = f"-MOVED {slot_of(HERE)} c-p0-1:6379"
    assert world.client.ask("READONLY") == b"OK"
    assert world.client.ask(b"GET " + HERE) == b"1"
    assert world.client.ask(b"STRLEN " + HERE) == 1
    clock.time += 1
    assert world.client.ask(b"GET " + HERE) == moved
    core.fresh_at = clock.time
    world.client.send(b"DEL " + HERE)
    await turn()
    assert world.client.replies() == [moved]
    assert world.client.ask("READWRITE") == b"OK"
    assert world.client.ask(b"GET " + HERE) == moved


async def test_without_a_leader_the_cluster_is_down(world: World) -> None:
    """Also while this node is said to lead and does not serve: clients come back for this error."""
    world.follow("c-p0-0")
    assert world.client.ask(b"GET " + HERE) == f"-{errors.NO_SLOT}"
    world.follow("gone")
    assert world.client.ask(b"GET " + HERE) == f"-{errors.NO_SLOT}"
    world.view = ClusterView()
    assert str(world.client.ask(b"GET " + HERE)).startswith("-CLUSTERDOWN ")


async def test_a_leader_without_a_lease_does_not_answer_reads(world: World) -> None:
    """It may have been replaced."""
    world.host.core.lease_until = world.host.clock.time
    assert str(world.client.ask(b"GET " + HERE)).startswith("-CLUSTERDOWN ")
    assert str(world.client.ask("DBSIZE")).startswith("-CLUSTERDOWN ")


async def test_what_was_begun_when_leadership_ended_is_unknown(world: World) -> None:
    """Never MOVED: a client would send it again. What was only queued goes to the new leader."""
    world.client.send("SET a{b} 1", "SET b{b} 1", "INCR n{b}")
    await turn()
    world.client.send("SET c{b} 1")
    world.follow()
    world.host.watcher.role_changed(Role.FOLLOWER, 2)
    await turn()
    unknown = f"-{errors.UNKNOWN_OUTCOME}"
    assert world.client.replies() == [unknown, unknown, unknown, f"-MOVED {slot_of(b'c{b}')} c-p0-1:6379"]
    assert world.door.counts.of["set"].errors == 3


async def test_refusals_in_redis_words(world: World) -> None:
    """Too few replicas, a full disk, a deadline."""
    world.host.core.enough = False
    world.client.send("SET a{b} 1")
    await turn()
    assert world.client.replies() == [f"-{errors.NO_REPLICAS}"]
    world.host.core.enough = True
    world.service.disk_full = True
    world.client.send("SET a{b} 1")
    await turn()
    assert [str(r).split()[0] for r in world.client.replies()] == ["-MISCONF"]
    world.service.disk_full = False
    world.client.send("SET a{b} 1")
    world.host.clock.time += 11
    await turn()
    assert [str(r).split()[0] for r in world.client.replies()] == ["-TRYAGAIN"]


async def test_keys_of_several_slots_are_refused(world: World) -> None:
    """As a Redis Cluster does, wherever the slots are."""
    assert world.client.ask("MGET a b") == f"-{errors.CROSS_SLOT}"
    assert world.client.ask("MSET a 1 b 2") == f"-{errors.CROSS_SLOT}"
    assert await write(world, "MSET {b}a 1 {b}b 2", "RENAME {b}a {b}c", "MGET {b}a {b}b {b}c") == [
        b"OK", b"OK", [None, b"2", b"1"]
    ]  # fmt: skip


async def test_asking(world: World) -> None:
    """While a slot moves away its node says where to ask; a client that was sent here says ASKING first."""
    slot = slot_of(HERE)
    world.door._moving = {slot: 1}.get
    ask = f"-ASK {slot} c-p1-0:6379"
    assert world.client.ask(b"GET " + HERE) == ask
    assert world.client.ask(b"SET " + HERE + b" 1") == ask
    assert world.client.ask("GET {b}2") == ask
    assert world.client.ask("GET other{f}") is None
    world.client.send("ASKING", b"GET " + HERE, b"GET " + HERE)
    assert world.client.replies() == [b"OK", None, ask]
    world.view = replace(world.view, partitions={})
    assert world.client.ask(b"GET " + HERE) == f"-{errors.NO_SLOT}"


async def test_the_cluster_describes_itself(world: World) -> None:
    """Slots, shards, nodes, ids."""
    leader, follower, other = (node_id("c", pod) for pod in ("c-p0-0", "c-p0-1", "c-p1-0"))
    text = [leader.encode(), follower.encode(), other.encode()]
    assert len(leader) == 40
    assert world.client.ask("CLUSTER MYID") == text[0]
    assert world.client.ask("CLUSTER SLOTS") == [
        [0, 8191, [b"c-p0-0", 6379, text[0], []], [b"c-p0-1", 6379, text[1], []]],
        [8192, 16383, [b"c-p1-0", 6379, text[2], []]],
    ]
    assert str(world.client.ask("CLUSTER NODES"), "ascii").splitlines() == [  # type: ignore[call-overload]
        f"{leader} c-p0-0:6379@7401 myself,master - 0 0 1 connected 0-8191",
        f"{follower} c-p0-1:6379@7401 slave {leader} 0 0 1 connected",
        f"{other} c-p1-0:6379@7401 master - 0 0 3 connected 8192-16383",
    ]
    shards = world.client.ask("CLUSTER SHARDS")
    assert isinstance(shards, list)
    assert shards[0][1] == [0, 8191]
    assert [n[1] for n in shards[0][3]] == text[:2]
    info = world.client.ask("CLUSTER INFO")
    assert isinstance(info, bytes)
    for line in (b"cluster_state:ok", b"cluster_known_nodes:3", b"cluster_size:2", b"cluster_current_epoch:3"):
        assert line in info
    assert world.client.ask("CLUSTER KEYSLOT {b}") == slot_of(b"b")
    assert str(world.client.ask("CLUSTER WHAT")).startswith("-ERR unknown subcommand")


async def test_a_partition_without_a_leader_is_left_out(world: World) -> None:
    """And the cluster says that it is not whole."""
    world.view = replace(world.view, partitions={0: led_by("c-p0-0"), 1: led_by("gone")})
    slots = world.client.ask("CLUSTER SLOTS")
    assert isinstance(slots, list)
    assert [row[:2] for row in slots] == [[0, 8191]]
    info = world.client.ask("CLUSTER INFO")
    assert isinstance(info, bytes)
    assert b"cluster_state:fail" in info


async def test_keys_in_a_slot(world: World) -> None:
    """Counted and named."""
    await write(world, "MSET {b}a 1 {b}b 2", "SET c{f} 1")
    slot = slot_of(b"b")
    world.client.send(
        f"CLUSTER COUNTKEYSINSLOT {slot}", f"CLUSTER GETKEYSINSLOT {slot} 1", f"CLUSTER GETKEYSINSLOT {slot} 9"
    )
    for _ in range(4):
        await turn()
    count, one, both = world.client.replies()
    assert count == 2
    assert isinstance(one, list)
    assert len(one) == 1
    assert isinstance(both, list)
    assert sorted(both) == [b"{b}a", b"{b}b"]
    assert world.client.ask("CLUSTER COUNTKEYSINSLOT 16384") == "-ERR Invalid slot"


async def test_resp3_has_its_own_null_and_maps(world: World) -> None:
    """After HELLO 3."""
    world.client.send("HELLO 3", "CONFIG GET save", "GET a{b}")
    data = world.client.transport.take()
    assert data.startswith(b"%7\r\n")
    assert data.endswith(b"%1\r\n$4\r\nsave\r\n$0\r\n\r\n_\r\n")


async def test_info_tells_role_keys_and_counts(world: World) -> None:
    """As clients and people look for it."""
    await write(world, "SET a{b} 1")
    info = world.client.ask("INFO")
    assert isinstance(info, bytes)
    for line in (b"role:master", b"redis_mode:cluster", b"db0:keys=1", b"cmdstat_set:calls=1,failed_calls=0"):
        assert line in info
    world.follow()
    info = world.client.ask("INFO replication")
    assert isinstance(info, bytes)
    assert b"role:slave" in info
    assert b"master_host:c-p0-1" in info
    assert str(world.client.ask("WAIT 0 0")).startswith("-ERR WAIT cannot be used")


async def test_unknown_commands_are_counted_together(world: World) -> None:
    """A client can't make labels."""
    assert str(world.client.ask("nope a")) == "-ERR unknown command 'nope', with args beginning with: 'a' "
    world.client.ask("nope2")
    assert world.door.counts.of["unknown"].calls == world.door.counts.of["unknown"].errors == 2


def test_the_fixtures_state_is_the_hosts(tmp_path: Path) -> None:
    """The view and the fake host tell of the same leader."""
    assert STATE.leader == ME == RunId(ReplicaId("c-p0-0", "1"), "r1")
    assert slot_of(HERE) < 8192 <= slot_of(THERE)
