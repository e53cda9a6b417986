"""Small disks under real nodes: writes are refused before they fail, reads go on, and all heals when there is space."""

import asyncio
from pathlib import Path

import pytest
from grpc import StatusCode, aio

from kvproto.v1 import kv_pb2
from kvstore.store import StoreOptions
from tests.support.faulty_files import FaultyFiles
from tests.support.node_cluster import NodeCluster, node_cluster

MIB = 1 << 20
SMALL = 8 * MIB  # as long as the test wants it so
WITH_BALLAST = StoreOptions(preallocate_bytes=0, ballast_bytes=MIB)
EXACT = StoreOptions(preallocate_bytes=0)  # a write finds no zeros to go into


def small_disks(*pods: str) -> dict[str, FaultyFiles]:
    return {pod: FaultyFiles(capacity=SMALL) for pod in pods}


async def write(nodes: NodeCluster, index: int, size: int = 100_000) -> None:
    await nodes.put(b"k%d" % index, bytes(size))


async def refused(nodes: NodeCluster, pod: str) -> aio.AioRpcError:
    """The refusal of a write, once there is one."""
    stub = await nodes.kv(pod)
    async with asyncio.timeout(30):
        while True:
            try:
                await stub.Put(kv_pb2.PutRequest(key=b"more", value=b"v"), timeout=5)
            except aio.AioRpcError as e:
                if e.code() == StatusCode.RESOURCE_EXHAUSTED:
                    return e


async def message(nodes: NodeCluster, pod: str) -> str:
    return (await nodes.coordination.read_members())[pod].trouble


@pytest.mark.parametrize("replicas", [3, 1])
async def test_a_leader_refuses_writes_before_its_disk_is_full(tmp_path: Path, replicas: int) -> None:
    """With the reason; linearizable reads go on, of the only replica, too; writes when there is space again."""
    disks = small_disks(*(f"c-p0-{i}" for i in range(replicas)))
    async with node_cluster(tmp_path, replicas, files=disks) as nodes:
        await write(nodes, 0)
        before = await nodes.all_in_sync()
        leader = await nodes.leader()
        stub = await nodes.kv(leader)
        nodes.files[leader].capacity = SMALL - nodes.files[leader].free_bytes(tmp_path) + MIB // 2
        assert "disk is nearly full" in str((await refused(nodes, leader)).details())
        for _ in range(20):
            record = await stub.Get(kv_pb2.GetRequest(key=b"k0"), timeout=5)
            assert record.value == bytes(100_000)
        async for members in nodes.coordination.watch_members():
            if members[leader].trouble.startswith("DiskFull: "):
                break
        await refused(nodes, leader)
        assert (await stub.Get(kv_pb2.GetRequest(key=b"k0"), timeout=5)).value == bytes(100_000)
        nodes.files[leader].capacity = SMALL
        await write(nodes, 1)
        after = await nodes.all_in_sync()
        assert (after.epoch, after.leader) == (before.epoch, before.leader), "nobody was to be replaced"


@pytest.mark.parametrize("replicas", [3, 1])
async def test_a_leader_whose_write_finds_no_space_gives_up_its_ballast(tmp_path: Path, replicas: int) -> None:
    """It happened too fast for it to see: that write is done all the same, later ones are refused, reads go on."""
    disks = small_disks(*(f"c-p0-{i}" for i in range(replicas)))
    async with node_cluster(tmp_path, replicas, files=disks, options=WITH_BALLAST) as nodes:
        await write(nodes, 0)
        before = await nodes.all_in_sync()
        leader = await nodes.leader()
        stub = await nodes.kv(leader)
        disk = nodes.files[leader]
        disk.told_free = SMALL  # nobody sees it coming
        disk.capacity = SMALL - disk.room + 1000
        await write(nodes, 1)
        assert "disk is nearly full" in str((await refused(nodes, leader)).details())
        for n in range(2):
            assert (await stub.Get(kv_pb2.GetRequest(key=b"k%d" % n), timeout=5)).value == bytes(100_000)
        disk.told_free = None
        await told(nodes, leader, "DiskFull: ")
        disk.capacity = SMALL
        await write(nodes, 2)
        after = await nodes.all_in_sync()
        assert (after.epoch, after.leader) == (before.epoch, before.leader), "nobody was to be replaced"


async def test_a_follower_leaves_before_its_disk_is_full_and_comes_back(tmp_path: Path) -> None:
    """The partition goes on without it."""
    async with node_cluster(tmp_path, files=small_disks("c-p0-0", "c-p0-1", "c-p0-2")) as nodes:
        await write(nodes, 0)
        await nodes.all_in_sync()
        leader = await nodes.leader()
        follower = next(pod for pod in nodes.pods if pod != leader)
        used = SMALL - nodes.files[follower].free_bytes(tmp_path)
        nodes.files[follower].capacity = used + MIB // 8
        await nodes.state(lambda s: follower not in {r.pod for r in s.in_sync})
        for i in range(5):
            await write(nodes, i)
        nodes.files[follower].capacity = SMALL
        await nodes.all_in_sync()


async def test_a_follower_whose_write_finds_no_space_does_not_stop_the_partition(tmp_path: Path) -> None:
    """It happened too fast for it to leave: it is taken out as broken, begins from empty, and joins."""
    disks = small_disks("c-p0-0", "c-p0-1", "c-p0-2")
    async with node_cluster(tmp_path, files=disks, options=EXACT) as nodes:
        await write(nodes, 0)
        before = await nodes.all_in_sync()
        leader = await nodes.leader()
        follower = next(r for r in before.in_sync if r.pod != leader)
        nodes.files[follower.pod].capacity = SMALL - nodes.files[follower.pod].free_bytes(tmp_path) + 1000
        await write(nodes, 1)
        await nodes.state(lambda s: follower not in s.in_sync)
        nodes.files[follower.pod].capacity = SMALL
        assert follower not in (await nodes.all_in_sync()).in_sync


async def test_a_leader_that_finds_no_space_for_its_meta_file_gives_way_and_comes_back(tmp_path: Path) -> None:
    """What may not be forgotten can't be written, so nothing follows from it: as after any failed write."""
    disks = small_disks("c-p0-0", "c-p0-1", "c-p0-2")
    async with node_cluster(tmp_path, files=disks) as nodes:
        await write(nodes, 0)
        before = await nodes.all_in_sync()
        leader = await nodes.leader()
        follower = next(pod for pod in nodes.pods if pod != leader)
        nodes.files[leader].capacity = SMALL - nodes.files[leader].free_bytes(tmp_path)
        await nodes.kill(follower)  # a change of the in-sync set
        assert await nodes.leader(above=before.epoch) != leader
        await told(nodes, leader, "meta file")
        assert not nodes.running[leader].task.done(), "it waits for space"
        nodes.start(follower)
        nodes.files[leader].capacity = SMALL
        await nodes.all_in_sync()
        assert (await nodes.get(leader, b"k0", read_mode="READ_MODE_ANY")).value == bytes(100_000)


async def told(nodes: NodeCluster, pod: str, text: str) -> None:
    """Until a node says this is wrong with it."""
    async with asyncio.timeout(30):
        async for members in nodes.coordination.watch_members():
            if text in members[pod].trouble:
                return


async def test_the_only_replica_whose_write_found_no_space_opens_its_disk_again(tmp_path: Path) -> None:
    """Nobody else has the data, and what is on the disk is known: as after a crash. Until then it answers nothing."""
    async with node_cluster(tmp_path, pods=1, files=small_disks("c-p0-0"), options=EXACT) as nodes:
        await write(nodes, 0)
        (pod,) = nodes.pods
        before = await nodes.all_in_sync()
        stub = await nodes.kv(pod)
        nodes.files[pod].capacity = SMALL - nodes.files[pod].free_bytes(tmp_path) + 1000
        with pytest.raises(aio.AioRpcError):
            await stub.Put(kv_pb2.PutRequest(key=b"k1", value=bytes(100_000)), timeout=5)
        with pytest.raises(aio.AioRpcError) as unread:
            await stub.Get(kv_pb2.GetRequest(key=b"k0"), timeout=5)
        assert unread.value.code() == StatusCode.UNAVAILABLE
        nodes.files[pod].capacity = SMALL
        await write(nodes, 2)
        after = (await nodes.state()).value
        assert after.in_sync == before.in_sync
        assert after.epoch > before.epoch
        assert (await nodes.get(pod, b"k0")).value == bytes(100_000)
