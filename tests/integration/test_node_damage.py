"""Damaged disks of real nodes: never a wrong value; the replica leaves, is rebuilt from the others, and says so."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from kvclient import AsyncClient
from kvcommon.errors import KVClusterError
from kvcoord.contract import MemberInfo, PartitionState, ReplicaId
from kvlocal.cluster import LocalCluster
from tests.support.local_cluster import local_cluster

PATIENCE = 60.0
VALUES = {b"key-%03d" % i: b"%03d" % i * 400 for i in range(60)}


async def fill(cluster: LocalCluster) -> None:
    """Write all values, in several batches: damage in a log's last one is a torn tail, which is cut."""
    keys = list(VALUES)
    async with await AsyncClient.connect(cluster.router_address, mode="router") as client:
        for i in range(0, len(keys), 6):
            await asyncio.gather(*(client.put(key, VALUES[key]) for key in keys[i : i + 6]))


async def check(cluster: LocalCluster) -> None:
    """Every value is there, as it was written, as soon as someone can read it."""
    async with await AsyncClient.connect(cluster.router_address, mode="router") as client:
        for key, value in VALUES.items():
            async with asyncio.timeout(PATIENCE):
                while True:
                    try:
                        record = await client.get(key)
                    except KVClusterError:  # the damage was found: nobody is told a wrong value
                        continue
                    assert record is not None
                    assert record.value == value
                    break


def flip(file: Path, at: int) -> None:
    """Turn the bits of some bytes of a file, under whoever has it open."""
    with file.open("r+b") as opened:
        opened.seek(at)
        found = opened.read(8)
        opened.seek(at)
        opened.write(bytes(b ^ 0xFF for b in found))


def flip_value(file: Path) -> None:
    """Damage a value that is neither among the first nor among the last of a log."""
    flip(file, file.read_bytes().index(VALUES[b"key-030"]) + 100)


def segment(cluster: LocalCluster, pod: str) -> Path:
    """The first segment of a node's log."""
    return min(cluster.folder.data(pod).glob("*.log"))


async def state(cluster: LocalCluster, fits: Callable[[PartitionState], bool]) -> PartitionState:
    """The first state that fits."""
    async with asyncio.timeout(PATIENCE):
        async for versioned in cluster.coordination.watch_partition(0):
            if versioned is not None and fits(versioned.value):
                return versioned.value
    raise AssertionError("coordination was closed")


async def rebuilt(cluster: LocalCluster, damaged: ReplicaId) -> PartitionState:
    """The state in which the pod is in sync again, with another disk."""

    def fits(now: PartitionState) -> bool:
        return damaged not in now.in_sync and damaged.pod in {r.pod for r in now.in_sync}

    return await state(cluster, fits)


async def told(cluster: LocalCluster, pod: str, word: str) -> str:
    """What a member says is wrong with it, once it says this."""
    async with asyncio.timeout(PATIENCE):
        members: Mapping[str, MemberInfo]
        async for members in cluster.coordination.watch_members():
            if pod in members and word in members[pod].trouble:
                return members[pod].trouble
    raise AssertionError("coordination was closed")


async def healthy(cluster: LocalCluster) -> tuple[ReplicaId, ReplicaId]:
    """Leader and a follower of a partition whose replicas are all in sync."""
    await cluster.wait_in_sync(0)
    now = await state(cluster, lambda s: s.leader is not None)
    assert now.leader is not None
    return now.leader.replica, next(r for r in now.in_sync if r != now.leader.replica)


async def test_a_leaders_log_is_damaged_while_it_runs(tmp_path: Path) -> None:
    """Another takes over; whoever reads gets the true value or an error."""
    async with local_cluster(tmp_path) as cluster:
        await fill(cluster)
        leader, _ = await healthy(cluster)
        flip_value(segment(cluster, leader.pod))
        seen = asyncio.create_task(told(cluster, leader.pod, "ReplicaDamaged: "))
        await check(cluster)
        now = await rebuilt(cluster, leader)
        assert now.leader is not None
        assert "CorruptionError" in await seen
        await check(cluster)


async def test_a_followers_log_is_damaged_while_it_runs(tmp_path: Path) -> None:
    """It is found when it leads, at the latest: then the next one takes over."""
    async with local_cluster(tmp_path) as cluster:
        await fill(cluster)
        leader, follower = await healthy(cluster)
        flip_value(segment(cluster, follower.pod))
        await cluster.kill(leader.pod)
        await state(cluster, lambda s: s.leader is not None and s.leader.replica == follower)
        cluster.restart(leader.pod)
        await check(cluster)
        await rebuilt(cluster, follower)
        await check(cluster)


async def test_a_leaders_disk_does_not_know_whose_it_is(tmp_path: Path) -> None:
    """It does not start on it, says so, and begins anew once the others have taken every disk of its pod out."""
    async with local_cluster(tmp_path) as cluster:
        await fill(cluster)
        leader, _ = await healthy(cluster)
        seen = asyncio.create_task(told(cluster, leader.pod, "ReplicaDamaged: "))
        await cluster.kill(leader.pod)
        flip(cluster.folder.data(leader.pod) / "meta", 40)
        cluster.restart(leader.pod)
        await rebuilt(cluster, leader)
        assert "at offset" in await seen
        await check(cluster)


async def test_the_last_replica_in_sync_is_never_wiped(tmp_path: Path) -> None:
    """It stays down, serves nothing, and says what a person can do."""
    async with local_cluster(tmp_path, replicas=1) as cluster:
        await fill(cluster)
        leader = (await state(cluster, lambda s: s.leader is not None)).in_sync[0]
        await cluster.kill(leader.pod)
        flip_value(segment(cluster, leader.pod))
        cluster.restart(leader.pod)
        assert "it alone was in sync" in await told(cluster, leader.pod, "alone")
        status = await cluster.status(leader.pod)
        assert status is not None
        assert "kvrecover" in status["message"]
        assert (await cluster.state(0)).in_sync == (leader,)
        assert segment(cluster, leader.pod).stat().st_size > len(VALUES) * 1200
