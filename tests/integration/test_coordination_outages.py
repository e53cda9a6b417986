"""Coordination on a ZooKeeper ensemble of three whose members are killed and paused, with the default numbers."""

import asyncio
import socket
import uuid
from collections import deque
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvcoord.contract import Coordination, CoordinationUnavailableError, Versioned, Won
from kvcoord.open import open_coordination
from kvcoord.zookeeper import ZookeeperCoordination
from tests.support.zookeeper import Ensemble, running_ensemble
from tests.unit.kvcoord.contract_suite import STATE, Collector, led_by, member

pytestmark = pytest.mark.xdist_group("zookeeper")

PATIENCE = 20.0


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ensemble]:
    with running_ensemble(tmp_path_factory.mktemp("ensemble"), members=3) as servers:
        yield servers


@pytest.fixture
async def sessions(ensemble: Ensemble) -> AsyncIterator[list[ZookeeperCoordination]]:
    ensemble.start()  # whatever the test before has killed
    path = f"/kvcluster/{uuid.uuid4()}"
    opened = [opened_at(ensemble.url(path)) for _ in range(3)]
    for session in opened:
        await session.start()
    yield opened
    for session in opened:
        await session.close()


def opened_at(url: str) -> ZookeeperCoordination:
    coordination = open_coordination(url)
    assert isinstance(coordination, ZookeeperCoordination)
    return coordination


def server_port_of(session: ZookeeperCoordination) -> int:
    port: int = session._zk._client._connection._socket.getpeername()[1]
    return port


async def write_until_won(c: Coordination, epoch: int) -> int:
    """Settle every maybe by reading, as the protocol does; the version at which the state has this epoch."""
    wanted = led_by(f"run{epoch}", STATE)
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                now = await c.read_partition(0)
                assert now is not None
                if now.value == wanted:
                    return now.version
                await c.compare_and_set_partition(0, now.version, wanted)
            except CoordinationUnavailableError:
                continue


class WrongOnce(deque[Any]):
    """Kazoo's questions without an answer yet; it takes the next answer for that to another question."""

    wrong = True

    def popleft(self) -> Any:
        request, answer, xid = super().popleft()
        wrong, self.wrong = self.wrong, False
        return request, answer, xid + wrong


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)  # its thread's end is what is tested
async def test_an_answer_to_another_question_costs_that_call_and_the_connection(
    sessions: list[ZookeeperCoordination],
) -> None:
    """Kazoo then raises what is no error of its own, and its thread ends: torture saw a node's process end of it."""
    session = sessions[0]
    await session.create_partition(0, STATE)
    client = session._zk._client
    client._pending = WrongOnce(client._pending)

    with pytest.raises(CoordinationUnavailableError):
        await session.compare_and_set_partition(0, 0, led_by("run1", STATE))

    await write_until_won(session, 2)
    assert session._zk._client is not client


async def test_the_whole_ensemble_dead_for_15_seconds(
    ensemble: Ensemble, sessions: list[ZookeeperCoordination]
) -> None:
    writer, watcher, node = sessions
    await writer.create_partition(0, STATE)
    await node.register_member(member())
    states, members = Collector(watcher.watch_partition(0)), Collector(watcher.watch_members())
    await states.until(bool, PATIENCE)
    await members.until(lambda seen: bool(seen) and "c-p0-0" in seen[-1], PATIENCE)
    loop = asyncio.get_running_loop()

    await asyncio.to_thread(ensemble.kill)
    dead_since = loop.time()
    while loop.time() - dead_since < 15:
        begin = loop.time()
        with pytest.raises(CoordinationUnavailableError):
            await writer.compare_and_set_partition(0, 0, led_by("lost"))
        assert loop.time() - begin < 3
    assert not writer.connected
    assert members.seen[-1] == {"c-p0-0": member()}, "while the service is away nothing is yielded"
    await asyncio.to_thread(ensemble.start)
    back_since = loop.time()

    assert await writer.read_partition(0) == Versioned(STATE, 0)
    print(f"first answer {loop.time() - back_since:.2f} s after the ensemble is back")
    await write_until_won(writer, 1)
    await states.until(lambda seen: seen[-1] is not None and seen[-1].version == 1, PATIENCE)
    print(f"a watch delivered {loop.time() - back_since:.2f} s after")
    async with asyncio.timeout(3):
        while "c-p0-0" not in await watcher.read_members():
            continue
    print(f"the registration was back {loop.time() - back_since:.2f} s after")
    await asyncio.sleep(8)  # longer than a session: what is registered now belongs to a living one
    assert await watcher.read_members() == {"c-p0-0": member()}
    versions = [v.version for v in states.seen if v is not None]
    assert versions == sorted(set(versions))


async def test_the_leader_killed_under_writes_loses_nothing(
    ensemble: Ensemble, sessions: list[ZookeeperCoordination]
) -> None:
    writer, watcher, node = sessions
    await writer.create_partition(0, STATE)
    await node.register_member(member())
    states = Collector(watcher.watch_partition(0))
    acknowledged = await write_until_won(writer, 1)
    await asyncio.to_thread(ensemble.leader().kill)
    for run in range(2, 30):
        version = await write_until_won(writer, run)
        assert version > acknowledged
        acknowledged = version
    await states.until(lambda seen: bool(seen) and seen[-1] is not None and seen[-1].version == acknowledged, PATIENCE)
    assert await watcher.read_members() == {"c-p0-0": member()}


async def test_a_paused_server_costs_a_session_seconds_and_not_its_registration(
    ensemble: Ensemble, sessions: list[ZookeeperCoordination]
) -> None:
    _, watcher, node = sessions
    await node.register_member(member())
    members = Collector(watcher.watch_members())
    await members.until(lambda seen: bool(seen) and "c-p0-0" in seen[-1], PATIENCE)
    session_before = node._zk.session_id
    port = server_port_of(node)
    paused = next(m for m in ensemble.members if m.client_port == port)
    loop = asyncio.get_running_loop()
    paused.pause()
    begin = loop.time()
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await node.read_map()
                    break
                except CoordinationUnavailableError:
                    continue
        print(
            f"answered by another server {loop.time() - begin:.2f} s after; same session: "
            f"{node._zk.session_id == session_before}"
        )
        assert server_port_of(node) != port
    finally:
        paused.resume()
    async with asyncio.timeout(PATIENCE):
        while await watcher.read_members() != {"c-p0-0": member()}:
            continue


async def test_a_name_that_moves_to_another_address_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the pods of a StatefulSet do: same name, other address (here: other port)."""
    true_getaddrinfo = socket.getaddrinfo
    with running_ensemble(tmp_path / "old") as old, running_ensemble(tmp_path / "new") as new:
        port = old.members[0].client_port

        def getaddrinfo(host: str, *args: Any, **kwargs: Any) -> Any:
            if host == "zk.example":
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
            return true_getaddrinfo(host, *args, **kwargs)

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        coordination = opened_at("zookeeper://zk.example:2181/kvcluster/moved")
        await coordination.start()
        assert await coordination.create_partition(0, STATE) == Won(0)
        collector = Collector(coordination.watch_partition(0))
        await collector.until(bool, PATIENCE)
        session = coordination.session
        port = new.members[0].client_port
        await asyncio.to_thread(old.kill)
        await collector.until(lambda seen: seen[-1] is None, PATIENCE)  # the new server knows nothing: data was lost
        with pytest.raises(CoordinationUnavailableError, match="is another now"):
            await coordination.create_partition(0, led_by("again"), session=session)
        assert await coordination.create_partition(0, led_by("again"), session=coordination.session) == Won(0)
        await collector.until(lambda seen: seen[-1] == Versioned(led_by("again"), 0), PATIENCE)
        await coordination.close()
