"""Nodes that compact while they serve, and others that copy what is left; on real files."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest

from kvnode.shell import host, upkeep
from kvproto.v1 import kv_pb2
from kvstore.batch import Record, encode_batch, iter_batches, iter_records
from kvstore.store import Store, StoreOptions
from tests.support.node_cluster import CLUSTER, NodeCluster, node_cluster
from tests.unit.kvstore.support import DELETE, PUT, fold

SMALL = StoreOptions(segment_bytes=8_000, compaction_bytes_per_second=0, compaction_reserve_bytes=0, tombstone_ms=0)


@pytest.mark.parametrize("seed", range(2))
def test_gets_reads_and_commits_race_with_flushes_and_compaction(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    options = StoreOptions(
        segment_bytes=8_000, read_cache_bytes=3_000, compaction_bytes_per_second=0, compaction_reserve_bytes=0
    )
    history: list[Record] = []
    keys = [b"%d" % i for i in range(60)]

    def compact() -> int:
        while store.maintain():
            pass
        return store.verify()

    with (
        Store.open(tmp_path, cluster_id="c", partition=0, options=options) as store,
        ThreadPoolExecutor(1) as flusher,
        ThreadPoolExecutor(1) as worker,
    ):
        flushing, compacting = flusher.submit(store.flush), worker.submit(compact)
        copy: list[Record] = []
        visible: dict[bytes, Record] = {}
        position = horizon = seen = 0
        while store.progress.compactions < 5 or len(history) < 1000:
            if flushing.done() or len(history) - store.durable.index > 100:
                store.commit(flushing.result().index)
                flushing = flusher.submit(store.flush)
            if compacting.done():
                compacting.result()
                compacting = worker.submit(compact)
            first = store.end.index + 1
            kind = DELETE if random.random() < 0.2 else PUT
            value = b"" if kind == DELETE else random.randbytes(random.randrange(100))
            record = Record(kind, random.choice(keys), value, first, first)
            store.append(encode_batch(1, first, store.applied, [record]), trusted=True)
            history.append(record)
            if random.random() < 0.2:
                data = store.read(position, 2_000)
                copy += [r for _, b in iter_batches(data) for r in iter_records(b)]
                position, horizon = [h.last for h, _ in iter_batches(data)][-1], store.horizon
            key = random.choice(keys)
            for one in history[seen : store.applied]:
                visible[one.key] = one
            seen = store.applied
            expected = visible.get(key)
            assert store.get(key) == (None if expected is None or expected.type == DELETE else expected)
        flushing.result()
        compacting.result()
        assert position >= horizon
        assert fold(copy) == fold(history[:position])
        store.commit(store.flush().index)
    with Store.open(tmp_path, cluster_id="c", partition=0, options=options) as store:
        store.commit(len(history))
        state = fold(history)
        assert {k: store.get(k) for k in state} == state
        assert store.keys == len(state)


async def overwrite(cluster: NodeCluster, rounds: int) -> None:
    for i in range(rounds):
        await asyncio.gather(*(cluster.put(b"k%d" % k, b"%d " % i * 20) for k in range(30)))


def horizons(cluster: NodeCluster) -> list[int]:
    return [running.store.horizon for running in cluster.running.values() if running.store is not None]


async def test_a_lost_replica_is_built_anew_from_compacted_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has what the others have, leads in its turn, and what was deleted stays so."""
    monkeypatch.setattr(upkeep, "PAUSE", 0.02)
    monkeypatch.setattr(host, "READ_LOG_BYTES", 2_000)
    async with node_cluster(tmp_path, options=SMALL) as cluster:
        await cluster.put(b"gone", b"1")
        leader = await cluster.leader()
        await (await cluster.kv(leader)).Delete(kv_pb2.DeleteRequest(key=b"gone"))
        await overwrite(cluster, 12)
        async with asyncio.timeout(30):
            while min(horizons(cluster)) < 100:
                await overwrite(cluster, 1)
        lost = next(p for p in cluster.pods if p != leader)
        await cluster.kill(lost)
        cluster.wipe(lost)
        cluster.start(lost)
        await overwrite(cluster, 2)
        await cluster.all_in_sync()
        await cluster.kill(leader)
        second = await cluster.leader(not_pod=leader)
        assert (await cluster.get(second, b"k7")).value == b"1 " * 20
        cluster.start(leader)
        await cluster.all_in_sync()
    states = []
    for pod in cluster.pods:
        with Store.open(tmp_path / pod, cluster_id=CLUSTER, partition=0) as store:
            assert store.horizon >= 100
            store.commit(store.end.index)
            states.append({b"k%d" % k: store.get(b"k%d" % k) for k in range(30)} | {b"gone": store.get(b"gone")})
    assert states[0] == states[1] == states[2]
    assert states[0].pop(b"gone") is None
    assert {r.value for r in states[0].values() if r} == {b"1 " * 20}
