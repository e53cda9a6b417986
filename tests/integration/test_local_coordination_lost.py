"""A cluster of processes whose coordination data is lost under load: it goes on, and the data comes back (rule 19)."""

import asyncio
from pathlib import Path

import pytest

from kvclient import AsyncClient
from kvcoord.contract import PartitionState
from kvlocal.cluster import LocalCluster
from tests.support.local_cluster import local_cluster, under_load
from tests.support.zookeeper import Ensemble, running_ensemble


async def put_back(cluster: LocalCluster, partition: int) -> PartitionState:
    """The state of the next generation, once it is there."""
    async with asyncio.timeout(60):
        async for versioned in cluster.coordination.watch_partition(partition):
            if versioned is not None and versioned.value.generation == 2:
                return versioned.value
    raise AssertionError("coordination was closed")


async def lose(cluster: LocalCluster) -> None:
    """Delete the file that every process has open."""
    for file in cluster.folder.path.glob("coordination.db*"):
        file.unlink()


async def check_loss(cluster: LocalCluster, ensemble: Ensemble | None) -> None:
    """Writes go on through the loss; then every leader is killed, and others take over."""
    partitions = range(cluster.shape.partitions)
    async with under_load(cluster) as load:
        await load.flow()
        load.strike()
        if ensemble is None:
            await lose(cluster)
        else:
            await asyncio.to_thread(ensemble.wipe)
            await load.flow()
            await asyncio.to_thread(ensemble.start)
        states = await asyncio.gather(*(put_back(cluster, p) for p in partitions))
        await load.flow()
        for partition, state in zip(partitions, states, strict=True):
            assert state.leader is not None
            await cluster.kill(state.leader.replica.pod)
            await cluster.wait_leader(partition, state.epoch)
            cluster.restart(state.leader.replica.pod)
        await load.flow()
        for partition in partitions:
            await cluster.wait_in_sync(partition)
    load.judge()


async def test_the_sqlite_file_is_deleted(tmp_path: Path) -> None:
    """While everything runs."""
    async with local_cluster(tmp_path) as cluster:
        await check_loss(cluster, None)


@pytest.mark.xdist_group("zookeeper")
async def test_zookeeper_comes_back_empty(tmp_path: Path) -> None:
    """All members of the ensemble have lost their disks."""
    with running_ensemble(tmp_path / "zk", members=3) as ensemble:
        async with local_cluster(tmp_path, partitions=2, zookeeper=ensemble.hosts) as cluster:
            await check_loss(cluster, ensemble)


async def test_the_sqlite_file_is_deleted_while_nothing_runs(tmp_path: Path) -> None:
    """The next start finds the data all the same: from the disks alone."""
    async with local_cluster(tmp_path) as cluster:
        async with await AsyncClient.connect(cluster.router_address, mode="router") as client:
            await client.put(b"key", b"value")
        before = await cluster.state(0)
    await lose(cluster)
    async with local_cluster(tmp_path) as again:
        now = await again.state(0)
        assert not again.is_new
        assert now.generation == 2
        assert now.epoch > before.epoch
        async with await AsyncClient.connect(again.router_address, mode="router") as client:
            record = await client.get(b"key")
        assert record is not None
        assert record.value == b"value"
