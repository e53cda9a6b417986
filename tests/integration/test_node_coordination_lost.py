"""Coordination's data lost or turned back: nodes go on, and put it back from their disks (rule 19)."""

import asyncio
from pathlib import Path
from typing import Any

from kvcoord.contract import PartitionState
from kvnode.recover import RecoverSettings, recover
from kvproto.v1 import cluster_pb2, kv_pb2
from tests.support.node_cluster import CLUSTER, NodeCluster, node_cluster


async def status(nodes: NodeCluster, pod: str) -> Any:
    """What a node says of itself."""
    stub = await nodes.cluster(pod)
    return await stub.GetNodeStatus(cluster_pb2.GetNodeStatusRequest(), timeout=5)


async def said(nodes: NodeCluster, pod: str, what: str) -> None:
    """Until a node's status says this."""

    async def once() -> None:
        message = (await status(nodes, pod)).message
        if what not in message:
            raise KeyError(message)

    await nodes.eventually(once)


async def put_back(nodes: NodeCluster, generation: int = 2) -> PartitionState:
    """The state once it is there again."""
    return (await nodes.state(lambda s: s.generation == generation)).value


async def test_all_data_is_lost_and_comes_back_from_the_replicas(tmp_path: Path) -> None:
    """Writes and reads go on meanwhile; afterwards a leader can be replaced again."""
    async with node_cluster(tmp_path) as nodes:
        await nodes.put(b"before", b"1")
        before = await nodes.all_in_sync()
        leader = await nodes.leader()
        identity, slot_map = await nodes.coordination.read_identity(), await nodes.coordination.read_map()
        assert identity is not None
        assert slot_map is not None
        stub = await nodes.kv(leader)

        nodes.store.put_back({})
        written = 0
        back = asyncio.create_task(put_back(nodes))
        while not back.done():
            await stub.Put(kv_pb2.PutRequest(key=b"k%d" % written, value=b"v"), timeout=5)
            written += 1
        state = await back
        assert (state.epoch, state.leader, set(state.in_sync)) == (before.epoch, before.leader, set(before.in_sync))
        assert state.serial == before.serial + 1
        again = await nodes.coordination.read_identity()
        assert again is not None
        assert (again.cluster_id, again.generation) == (identity.cluster_id, 2)
        map_again = await nodes.coordination.read_map()
        assert map_again is not None
        assert map_again.value == slot_map.value

        await nodes.kill(leader)
        await nodes.leader(above=before.epoch)
        for i in range(0, written, max(1, written // 10)):
            answer = await nodes.get(await nodes.leader(), b"k%d" % i)
            assert answer.value == b"v"


async def test_a_replica_that_counts_is_waited_for(tmp_path: Path) -> None:
    """It may know a newer state. The others say so, and put the state back when it has answered."""
    async with node_cluster(tmp_path) as nodes:
        await nodes.put(b"k", b"1")
        state = await nodes.all_in_sync()
        assert state.leader is not None
        down = state.leader.replica.pod
        others = [pod for pod in nodes.pods if pod != down]
        nodes.store.put_back({})
        await nodes.kill(down)
        await said(nodes, others[0], f"{down}/")
        assert await nodes.coordination.read_partition(0) is None
        nodes.start(down)
        assert (await put_back(nodes)).epoch == state.epoch
        await nodes.put(b"k", b"2")


async def test_a_person_gives_up_a_replica_that_does_not_come_back(tmp_path: Path) -> None:
    """Looking changes nothing; the word, said twice, makes the chosen one lead."""
    async with node_cluster(tmp_path) as nodes:
        await nodes.put(b"k", b"1")
        state = await nodes.all_in_sync()
        assert state.leader is not None
        down = state.leader.replica.pod
        taken, other = (pod for pod in nodes.pods if pod != down)
        nodes.store.put_back({})
        await nodes.kill(down)
        await said(nodes, taken, f"{down}/")

        def asking(**words: str) -> RecoverSettings:
            return RecoverSettings(partition=0, cluster_id=CLUSTER, coordination="memory", **words)

        looked = await recover(asking(), nodes.coordination)
        assert f"the nodes wait: {down}/" in looked[-1]
        warned = await recover(asking(take=taken), nodes.coordination)
        assert f"--confirm {taken}" in warned[-1]
        assert down in warned[-2]
        assert await nodes.coordination.read_partition(0) is None

        done = await recover(asking(take=taken, confirm=taken), nodes.coordination)
        assert done[-1].startswith(f"done: {taken}/")
        assert await nodes.leader(above=state.epoch) == taken
        await nodes.state(lambda s: {r.pod for r in s.in_sync} == {taken, other})
        assert (await nodes.get(taken, b"k")).value == b"1"
        assert (await recover(asking(), nodes.coordination))[-1].startswith("nothing is lost")


async def test_data_that_was_turned_back_is_put_forward(tmp_path: Path) -> None:
    """What coordination shows is older than what the replicas acted on: nobody acts on it."""
    async with node_cluster(tmp_path) as nodes:
        await nodes.put(b"k", b"1")
        await nodes.all_in_sync()
        old = nodes.store.cells()
        first = await nodes.leader()
        await nodes.kill(first)
        await nodes.leader(not_pod=first)
        nodes.start(first)
        newest = await nodes.all_in_sync()
        nodes.store.put_back(old)
        state = await put_back(nodes)
        assert (state.epoch, state.serial) == (newest.epoch, newest.serial + 1)
        assert (await nodes.get(await nodes.leader(), b"k")).value == b"1"
