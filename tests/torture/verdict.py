"""What must hold once all faults are healed: the history, and the replicas' equality, through the API and on the disks."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from grpc import aio

from kvproto.v1 import kv_pb2, kv_pb2_grpc
from kvstore.batch import iter_batches
from kvstore.store import Store
from tests.support.workload import Report
from tests.torture.nodes import Node
from tests.torture.scene import Scene

EQUAL_SECONDS = 30.0
CHUNK = 1 << 20

Content = Mapping[bytes, tuple[int, bytes]]
"""Versions and values by key."""


def judge(report: Report) -> list[str]:
    """Breaches of the promise in the clients' history: unexplainable answers, versions that went back, lost writes."""
    return report.faults()


async def differing_nodes(scene: Scene, keys: Sequence[bytes]) -> list[str]:
    """Ask each replica for each key (reads of any age), until all of a partition say the same; else one sentence each."""
    found = []
    for partition in range(scene.shape.partitions):
        mine = [key for key in keys if scene.where(key) == partition]
        async with asyncio.timeout(2 * EQUAL_SECONDS):
            found += await _until_equal(scene.of(partition), mine)
    return found


async def _until_equal(nodes: Sequence[Node], keys: Sequence[bytes]) -> list[str]:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + EQUAL_SECONDS
    while True:
        contents = dict(
            zip([n.name for n in nodes], await asyncio.gather(*(_ask(n, keys) for n in nodes)), strict=True)
        )
        different = differences(contents)
        if not different or loop.time() > deadline:
            return different
        await asyncio.sleep(0.2)  # a follower learns of the last commit with the next message


async def _ask(node: Node, keys: Sequence[bytes]) -> Content:
    content: dict[bytes, tuple[int, bytes]] = {}
    async with aio.insecure_channel(f"{node.address}:{node.ports['grpc']}") as channel:
        stub = kv_pb2_grpc.KeyValueStub(channel)
        operations = [kv_pb2.Operation(kind=kv_pb2.OPERATION_KIND_GET, key=key) for key in keys]
        answer = await stub.Batch(
            kv_pb2.BatchRequest(operations=operations, read_mode=kv_pb2.READ_MODE_ANY), timeout=10
        )
    for key, result in zip(keys, answer.results, strict=True):
        if result.HasField("record"):
            content[key] = result.record.version, result.record.value
    return content


def differences(contents: Mapping[str, Content]) -> list[str]:
    """Where replicas do not hold the same, one sentence per replica that differs from the first; none if all are equal."""
    (first, expected), *others = contents.items()
    found = []
    for name, content in others:
        keys = sorted(key for key in {*expected, *content} if expected.get(key) != content.get(key))
        if keys:
            found.append(
                f"{name} differs from {first} in {len(keys)} keys, {keys[0]!r} for one: {content.get(keys[0])} "
                f"there, {expected.get(keys[0])} here"
            )
    return found


def differing_disks(scene: Scene) -> list[str]:
    """Open each replica's directory, once its process has ended, and compare what they hold."""
    found = []
    for partition in range(scene.shape.partitions):
        found += compare_logs({n.name: n.folder for n in scene.of(partition)}, scene.cluster_id, partition)
    return found


def compare_logs(folders: Mapping[str, Path], cluster_id: str, partition: int) -> list[str]:
    """One sentence per difference between replicas: ends, records that none has compacted, and all keys' values.

    All records are read, so all checksums are verified.
    """
    stores = {
        name: Store.open(path, cluster_id=cluster_id, partition=partition, pod=name) for name, path in folders.items()
    }
    try:
        found = _differing(f"partition {partition}: ends", {name: store.end for name, store in stores.items()})
        above = max(store.horizon for store in stores.values())  # below it compaction may have taken more from one
        found += _differing(
            f"partition {partition}: records above {above}",
            {name: dict(_records(store, above)) for name, store in stores.items()},
        )
        return found or _differing(
            f"partition {partition}: keys", {name: dict(_keys(store)) for name, store in stores.items()}
        )
    finally:
        for store in stores.values():
            store.close()


def _differing(what: str, values: Mapping[str, object]) -> list[str]:
    (first, expected), *others = values.items()
    return [
        f"{what} of {name} differ from {first}'s: {_short(value, expected)}"
        for name, value in others
        if value != expected
    ]


def _short(value: object, expected: object) -> str:
    if isinstance(value, dict) and isinstance(expected, dict):
        keys = sorted(k for k in {*value, *expected} if value.get(k) != expected.get(k))
        return f"{len(keys)} of them, {keys[0]} the first: {value.get(keys[0])} and {expected.get(keys[0])}"
    return f"{value} and {expected}"


def _keys(store: Store) -> Iterable[tuple[bytes, tuple[int, bytes]]]:
    """Version and value of every key, with all of the log taken as committed."""
    store.commit(store.end.index)
    for key in store.key_list():
        record = store.get(key)
        if record is not None:
            yield key, (record.version, record.value)


def _records(store: Store, above: int) -> Iterable[tuple[int, tuple[int, bytes]]]:
    """Batches by first index, with epoch and bytes: those that lie wholly above an index."""
    at = 0
    while at < store.end.index:
        data = store.read(at, CHUNK)
        for header, batch in iter_batches(data):
            at = header.last
            if header.first > above:
                yield header.first, (header.epoch, bytes(batch))
