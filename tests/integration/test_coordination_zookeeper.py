"""The coordination contract on a real ZooKeeper server."""

import asyncio
import itertools
import threading
import time
import uuid
from collections.abc import AsyncIterator

import pytest
from kazoo.client import KazooClient

from kvcoord.contract import Coordination, CoordinationUnavailableError, Versioned, Won
from kvcoord.open import open_coordination
from kvcoord.zookeeper import ZookeeperCoordination
from tests.support.zookeeper import Ensemble, zookeeper
from tests.unit.kvcoord.contract_suite import STATE, Collector, ContractSuite, World, led_by, member

__all__ = ["zookeeper"]

pytestmark = pytest.mark.xdist_group("zookeeper")


class ZookeeperWorld(World):
    patience = 20.0

    def __init__(self, ensemble: Ensemble) -> None:
        self.ensemble = ensemble
        self.root = f"/kvcluster-{uuid.uuid4()}"
        self.opened: list[ZookeeperCoordination] = []

    async def open(self, cluster: str = "a") -> Coordination:
        coordination = open_coordination(self.ensemble.url(f"{self.root}/{cluster}"), session_timeout=2.0)
        assert isinstance(coordination, ZookeeperCoordination)
        await coordination.start()
        self.opened.append(coordination)
        return coordination

    async def vanish(self, coordination: Coordination) -> None:
        assert isinstance(coordination, ZookeeperCoordination)
        coordination._zk._closed = True  # no other client is made
        self.break_client(coordination)

    def break_client(self, coordination: ZookeeperCoordination) -> None:
        client = coordination._zk._client
        client._stopped.set()  # its loop ends at the next loss of the connection, without a word to the server
        client._connection._socket.shutdown(2)

    async def lose_session(self, coordination: Coordination) -> None:
        assert isinstance(coordination, ZookeeperCoordination)
        await coordination._zk.until_connected()
        before = coordination._zk.connections
        await asyncio.to_thread(self._close_session, coordination._zk._client.client_id)
        async with asyncio.timeout(self.patience):
            while coordination._zk.connections == before:  # noqa: ASYNC110 - the client's own count has no event
                await asyncio.sleep(0.01)

    def _close_session(self, client_id: object) -> None:
        """Anyone who knows a session's id and password may end it."""
        thief = KazooClient(hosts=self.ensemble.hosts, client_id=client_id)
        thief.start()
        thief.stop()
        thief.close()


@pytest.fixture
async def world(zookeeper: Ensemble) -> AsyncIterator[ZookeeperWorld]:
    zookeeper_world = ZookeeperWorld(zookeeper)
    yield zookeeper_world
    for coordination in zookeeper_world.opened:
        await coordination.close()


class TestContract(ContractSuite):
    pass


async def test_a_watch_goes_on_over_a_lost_session(world: ZookeeperWorld) -> None:
    writer, watcher = await world.open(), await world.open()
    await writer.create_partition(0, STATE)
    collector = Collector(watcher.watch_partition(0))
    await collector.until(bool, world.patience)
    for version in range(5):
        await world.lose_session(watcher)
        assert await writer.compare_and_set_partition(0, version, led_by(f"run{version}")) == Won(version + 1)
    await collector.until(lambda seen: seen[-1] == Versioned(led_by("run4"), 5), world.patience)
    versions = [v.version for v in collector.seen if v is not None]
    assert versions == sorted(set(versions))


async def test_a_registration_removed_by_hand_is_made_again(world: ZookeeperWorld) -> None:
    node, other = await world.open(), await world.open()
    await node.register_member(member())
    assert isinstance(other, ZookeeperCoordination)
    client, path = other._zk._client, f"{world.root}/a/members/c-p0-0"
    first = await asyncio.to_thread(client.get, path)

    await asyncio.to_thread(client.delete, path)
    again = await asyncio.to_thread(_when_made, client, path, first[1].czxid, world.patience)

    assert again == first[0]
    members = Collector(other.watch_members())  # a watch may skip what was so short
    await members.until(lambda seen: bool(seen) and "c-p0-0" in seen[-1], world.patience)


def _when_made(client: KazooClient, path: str, but: int, patience: float) -> bytes | None:
    """The content of a node as soon as it is there, made by another transaction than this one; None: it was not in time."""
    deadline = time.monotonic() + patience
    while (left := deadline - time.monotonic()) > 0:
        changed = threading.Event()
        stat = client.exists(path, watch=lambda _, changed=changed: changed.set())
        if stat is not None and stat.czxid != but:
            return bytes(client.get(path)[0])
        changed.wait(left)
    return None


async def test_nobody_there_means_start_returns_calls_fail_in_time_and_close_is_prompt() -> None:
    coordination = open_coordination("zookeeper://127.0.0.1:1,no-such-host.invalid:2181/kvcluster/x")
    loop = asyncio.get_running_loop()
    begin = loop.time()
    await coordination.start()
    assert loop.time() - begin < 0.5
    collector = Collector(coordination.watch_map())
    for call in (coordination.read_map(), coordination.register_member(member())):
        begin = loop.time()
        with pytest.raises(CoordinationUnavailableError):
            await call
        assert loop.time() - begin < 3
    assert not coordination.connected
    begin = loop.time()
    await coordination.close()
    assert loop.time() - begin < 2.5
    await collector.ended(5)
    assert collector.seen == []


async def test_a_client_that_gave_up_is_replaced(world: ZookeeperWorld) -> None:
    node, other = await world.open(), await world.open()
    assert isinstance(node, ZookeeperCoordination)
    await node.register_member(member())
    before = node._zk.session_id
    world.break_client(node)
    async with asyncio.timeout(world.patience):
        while node._zk._client is None or node._zk.session_id in (before, 0):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    await node.register_member(member(empty=True))
    assert await other.read_members() == {"c-p0-0": member(empty=True)}


async def test_calls_take_milliseconds(world: ZookeeperWorld) -> None:
    c = await world.open()
    await c.create_partition(0, STATE)
    begin = time.perf_counter()
    for version in itertools.islice(itertools.count(), 100):
        await c.compare_and_set_partition(0, version, led_by("run"))
    each = (time.perf_counter() - begin) / 100
    print(f"compare-and-set: {each * 1000:.2f} ms")
    assert each < 0.2
