"""Real processes hurt in every way a process can be, under load: nothing acknowledged is lost or undone."""

import asyncio
import signal
from pathlib import Path

import pytest

from kvlocal.processes import Exit
from tests.support.local_cluster import local_cluster, under_load


@pytest.mark.parametrize("word_of_death", [False, True], ids=["lease runs out", "death is told"])
async def test_a_killed_leader_is_replaced_and_comes_back(tmp_path: Path, word_of_death: bool) -> None:
    """Every history stays linearizable while the epoch passes on."""
    async with local_cluster(tmp_path, word_of_death=word_of_death) as cluster:
        async with under_load(cluster) as load:
            before, leader = await cluster.state(0), await cluster.leader(0)
            await load.flow()
            load.strike()

            await cluster.kill(leader)
            next_leader, epoch = await cluster.wait_leader(0, before.epoch)
            await load.flow()
            cluster.restart(leader)
            await cluster.wait_in_sync(0)
            await load.flow()

        assert next_leader != leader
        assert epoch > before.epoch
    load.judge()


async def test_a_leader_that_is_told_to_end_hands_over(tmp_path: Path) -> None:
    """It ends with exit code 0, and another leads."""
    exits: list[Exit] = []
    async with local_cluster(tmp_path, exits=exits) as cluster:
        async with under_load(cluster) as load:
            before, leader = await cluster.state(0), await cluster.leader(0)
            await load.flow()
            load.strike()

            await cluster.terminate(leader)
            await cluster.wait_leader(0, before.epoch)
            await load.flow()
            cluster.restart(leader)
            await cluster.wait_in_sync(0)
            await load.flow()

        assert [(e.name, e.code) for e in exits] == [(leader, 0)]
    load.judge()


async def test_a_frozen_follower_is_left_behind_and_taken_back(tmp_path: Path) -> None:
    """Writes go on once the in-sync set has shrunk."""
    async with local_cluster(tmp_path) as cluster:
        async with under_load(cluster) as load:
            leader = await cluster.leader(0)
            follower = next(pod for pod in cluster.shape.pods if pod != leader)
            await load.flow()
            load.strike()

            cluster.freeze(follower)
            await load.flow()
            shrunk = await cluster.state(0)
            cluster.thaw(follower)
            await cluster.wait_in_sync(0)
            await load.flow()

        assert follower not in {replica.pod for replica in shrunk.in_sync}
    load.judge()


async def test_a_frozen_leader_wakes_up_to_find_another(tmp_path: Path) -> None:
    """What it answers after its lease ran out must not be believed by anyone, so it answers nothing."""
    async with local_cluster(tmp_path) as cluster:
        async with under_load(cluster) as load:
            before, leader = await cluster.state(0), await cluster.leader(0)
            await load.flow()
            load.strike()

            cluster.freeze(leader)
            await cluster.wait_leader(0, before.epoch)
            await load.flow(400)  # the new leader writes on while the old one sleeps
            cluster.thaw(leader)
            await load.flow()
            await cluster.wait_in_sync(0)

        assert await cluster.leader(0) != leader
    load.judge()


async def test_all_killed_at_once_come_back_with_all_that_was_acknowledged(tmp_path: Path) -> None:
    """As after a power cut of the whole machine, page cache aside."""
    async with local_cluster(tmp_path) as cluster, under_load(cluster) as load:
        before = await cluster.state(0)
        await load.flow()
        load.strike()

        await asyncio.gather(*(cluster.kill(pod) for pod in cluster.shape.pods))
        for pod in cluster.shape.pods:
            cluster.restart(pod)
        await cluster.wait_leader(0, before.epoch)
        await cluster.wait_in_sync(0)
        await load.flow()
    load.judge()


async def test_a_process_that_dies_by_itself_is_started_again(tmp_path: Path) -> None:
    """And it is said how it died."""
    exits: list[Exit] = []
    async with local_cluster(tmp_path, exits=exits) as cluster:
        leader = await cluster.leader(0)
        follower = next(pod for pod in cluster.shape.pods if pod != leader)

        await cluster.send(follower, signal.SIGKILL, hold=False)
        await cluster.wait_ready()
        await cluster.wait_in_sync(0)

        assert [(e.name, e.code) for e in exits] == [(follower, -signal.SIGKILL)]
        assert cluster.pid(follower) is not None
