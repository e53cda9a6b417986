"""Three nodes in one process: real disks, real connections; they replicate, fail over, and take back who was lost."""

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from kvcommon.numbers import Timing
from kvcoord.contract import ReplicaId, RunId
from kvnode.core.messages import Hello, Leave, Refuse, RefuseReason
from kvnode.core.types import START
from kvnode.shell import host
from kvnode.shell.wire import Decoder, encode
from kvproto.v1 import kv_pb2
from kvstore.store import Store
from tests.support.node_cluster import CLUSTER, PATIENCE, NodeCluster, node_cluster


async def test_what_one_writes_all_have(tmp_path: Path) -> None:
    """Also on disk, the same bytes, when they have ended."""
    async with node_cluster(tmp_path) as cluster:
        written = [await cluster.put(b"k%d" % i, b"v%d" % i) for i in range(20)]
        for pod in cluster.pods:
            record = await cluster.get(pod, b"k19", read_mode=kv_pb2.READ_MODE_BOUNDED, max_lag_ms=5000)
            assert (record.value, record.version) == (b"v19", written[19].version)
    logs = [_log(tmp_path / pod) for pod in cluster.pods]
    assert logs[0] == logs[1] == logs[2] != b""


async def test_a_leader_that_is_gone_is_replaced_and_comes_back(tmp_path: Path) -> None:
    """Nothing that was acknowledged is lost."""
    async with node_cluster(tmp_path) as cluster:
        await cluster.put(b"k", b"1")
        first = await cluster.leader()
        before = (await cluster.all_in_sync()).epoch

        await cluster.kill(first)
        second = await cluster.leader(not_pod=first, above=before)
        assert (await cluster.get(second, b"k")).value == b"1"
        await cluster.put(b"k", b"2")

        cluster.start(first)
        await cluster.all_in_sync()
        assert (await cluster.get(first, b"k", read_mode=kv_pb2.READ_MODE_BOUNDED, max_lag_ms=5000)).value == b"2"


async def test_a_leader_that_is_asked_to_end_hands_over(tmp_path: Path) -> None:
    """Without waiting for a lease, and it leaves the in-sync set."""
    async with node_cluster(tmp_path) as cluster:
        await cluster.put(b"k", b"1")
        first = await cluster.leader()
        before = (await cluster.all_in_sync()).epoch
        await cluster.end(first)
        state = (await cluster.state()).value
        assert state.epoch == before + 1
        assert first not in {r.pod for r in state.in_sync}
        assert (await cluster.get(await cluster.leader(), b"k")).value == b"1"


async def test_a_wiped_node_joins_under_a_new_incarnation(tmp_path: Path) -> None:
    """The old incarnation is not counted on any more."""
    async with node_cluster(tmp_path) as cluster:
        await cluster.put(b"k", b"1")
        lost = await _follower(cluster)
        before = (await cluster.member(lost)).replica
        await cluster.kill(lost)
        cluster.wipe(lost)
        cluster.start(lost)

        def joined(replicas: tuple[str, ...], old: bool) -> bool:
            return lost in replicas and not old

        state = (await cluster.state(lambda s: joined(tuple(r.pod for r in s.in_sync), before in s.in_sync))).value
        assert len(state.in_sync) == 3
        record = await cluster.get(lost, b"k", read_mode=kv_pb2.READ_MODE_BOUNDED, max_lag_ms=5000)
        assert record.value == b"1"


async def test_all_restarted_at_once_serve_again(tmp_path: Path) -> None:
    """The restarted leader claims at once, with all that was acknowledged."""
    async with node_cluster(tmp_path) as cluster:
        await cluster.put(b"k", b"1")
        before = (await cluster.all_in_sync()).epoch
        for pod in cluster.pods:
            await cluster.kill(pod)
        for pod in cluster.pods:
            cluster.start(pod)
        leader = await cluster.leader(above=before)
        assert (await cluster.get(leader, b"k")).value == b"1"


async def test_one_node_alone_is_a_cluster(tmp_path: Path) -> None:
    """With one replica nothing waits for others."""
    async with node_cluster(tmp_path, pods=1) as cluster:
        await cluster.put(b"k", b"1")
        assert (await cluster.get("c-p0-0", b"k")).value == b"1"


async def test_nonsense_at_the_replication_port_ends_its_connection_only(tmp_path: Path) -> None:
    """The node serves on."""
    async with node_cluster(tmp_path, pods=1) as cluster:
        await cluster.put(b"k", b"1")
        for nonsense in (b"GET / HTTP/1.1\r\n\r\n", bytes(64), encode(Leave(1, broken=True))[:-1] + b"x"):
            reader, writer = await _dial(cluster)
            writer.write(nonsense)
            async with asyncio.timeout(10):
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
            writer.close()
        assert (await cluster.get("c-p0-0", b"k")).value == b"1"


async def test_a_stranger_at_the_address_is_refused(tmp_path: Path) -> None:
    """Addresses are reused: a Hello names cluster, partition and the run that is meant (rule 13)."""
    async with node_cluster(tmp_path, pods=1) as cluster:
        await cluster.put(b"k", b"1")
        leader = (await cluster.state()).value.leader
        assert leader is not None
        sender = RunId(ReplicaId("c-p0-1", "1"), "r")
        right = Hello(CLUSTER, 0, sender, leader, 0, START, 0, (), Timing().lease)
        for wrong in (replace(right, cluster_id="x"), replace(right, partition=1), replace(right, to=sender)):
            reader, writer = await _dial(cluster)
            writer.write(encode(wrong))
            async with asyncio.timeout(10):
                answers = Decoder().feed(await reader.read())
            assert answers == [Refuse(1, RefuseReason.WRONG_ADDRESS)]
            writer.close()


async def test_a_follower_that_promises_for_less_than_the_leader_counts_on_is_refused(tmp_path: Path) -> None:
    """It would claim while the leader trusts in its promise (rule 5)."""
    async with node_cluster(tmp_path, pods=1) as cluster:
        await cluster.put(b"k", b"1")
        leader = (await cluster.state()).value.leader
        assert leader is not None
        short = Hello(CLUSTER, 0, RunId(ReplicaId("c-p0-1", "1"), "r"), leader, 0, START, 0, (), Timing().lease / 2)
        reader, writer = await _dial(cluster)
        writer.write(encode(short))
        async with asyncio.timeout(10):
            assert Decoder().feed(await reader.read()) == [Refuse(1, RefuseReason.OTHER_LEASE)]
        writer.close()


async def test_who_dials_and_says_nothing_is_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that such connections do not gather."""
    monkeypatch.setattr(host, "HELLO_TIMEOUT", 0.05)
    async with node_cluster(tmp_path, pods=1) as cluster:
        reader, writer = await _dial(cluster)
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()


async def _dial(cluster: NodeCluster) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    name, _, port = (await cluster.member("c-p0-0")).replication_address.rpartition(":")
    return await asyncio.open_connection(name, int(port))


async def _follower(cluster: NodeCluster) -> str:
    leader = await cluster.leader()
    await cluster.all_in_sync()
    return next(p for p in cluster.pods if p != leader)


def _log(directory: Path) -> bytes:
    with Store.open(directory, cluster_id=CLUSTER, partition=0) as store:
        return store.read(0, 1 << 30)


async def test_members_are_called_empty_until_they_have_data(tmp_path: Path) -> None:
    """By that the operator tells a new partition from one whose state was lost, also while its nodes run on."""
    async with node_cluster(tmp_path, pods=2) as cluster:
        await cluster.put(b"k", b"v")
        async with asyncio.timeout(PATIENCE):
            async for members in cluster.coordination.watch_members():
                if not any(member.empty for member in members.values()):
                    break
        assert len(members) == 2
