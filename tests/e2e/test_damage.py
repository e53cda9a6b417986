"""A disk that lost what it had: nobody is told a wrong value, the replica is rebuilt, and the KVCluster says so."""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import grpc

from kvclient import AsyncClient, Record
from tests.e2e.cluster import Cluster, partition_of
from tests.e2e.experiment import AFTER_KILL, Experiment
from tests.e2e.kube import Object, condition, wait_until
from tests.support.workload import LoopThread

PARTITION = 0
REASON = "ReplicaDamaged"
SPOIL = """
import os, pathlib, sys
value = bytes.fromhex(sys.argv[1])
for file in sorted(pathlib.Path(os.environ["KV_DATA_DIR"]).glob("*.log")):
    at = file.read_bytes().find(value)
    if at >= 0:
        with file.open("r+b") as opened:
            opened.seek(at)
            opened.write(bytes(8))
        print(file.name)
"""


async def put(routers: str, key: bytes, value: bytes) -> None:
    """Write one key."""
    async with await AsyncClient.connect(routers, mode="router") as client:
        await client.put(key, value)


async def read(routers: str, key: bytes) -> Record | None:
    """Read it: whoever finds the damage refuses, and the router asks again until another leads."""
    async with await AsyncClient.connect(routers, mode="router") as client:
        return await client.get(key, timeout=30)


def incarnation(cluster: Cluster, pod: str) -> str:
    """Of the disk that a pod has now; empty while it does not say."""
    try:
        return cluster.node_status(pod).incarnation
    except grpc.RpcError:
        return ""


def told(cluster: Cluster, pod: str) -> Object | None:
    """The Event about a pod's damage."""
    events = cluster.kube.list("events", cluster.namespace)
    about = [e for e in events if e["reason"] == REASON and e["involvedObject"]["name"] == cluster.name]
    return next((e for e in about if pod in e["message"]), None)


@contextmanager
def degraded_for(cluster: Cluster) -> Iterator[set[str]]:
    """The reasons for which the KVCluster is Degraded while this is open: a replica this small may be rebuilt in a second."""
    reasons: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.1):
            found = condition(cluster.resource(), "Degraded")
            if found is not None and found["status"] == "True":
                reasons.add(found["reason"])

    looking = threading.Thread(target=look, name="conditions", daemon=True)
    looking.start()
    try:
        yield reasons
    finally:
        over.set()
        looking.join()


def test_a_leader_whose_disk_is_damaged_is_rebuilt_and_the_kvcluster_says_so(cluster: Cluster) -> None:
    where = partition_of(cluster)
    key = next(key for n in count() if where(key := b"damaged/%d" % n) == PARTITION)
    value = secrets.token_bytes(200)
    loop = LoopThread.shared()
    with Experiment(cluster, "damaged disk") as experiment, degraded_for(cluster) as reasons:
        loop.run(put(cluster.address(), key, value))
        experiment.flow()  # what is last in a log could be a write that was torn
        before = cluster.partition(PARTITION)
        old = incarnation(cluster, before.leader)
        experiment.strike()
        spoiled = cluster.kube.kubectl(
            "exec", before.leader, "-n", cluster.namespace, "--", "python", "-c", SPOIL, value.hex()
        )
        assert spoiled.split(), "the value was found in no file of the log"
        record = loop.run(read(cluster.address(), key))
        event = wait_until(f"an Event {REASON} about {before.leader}", lambda: told(cluster, before.leader), 60)
        wait_until(
            f"{before.leader} under another incarnation",
            lambda: incarnation(cluster, before.leader) not in ("", old),
            120,
        )
        cluster.wait_whole()
        experiment.finish()
    assert record is not None
    assert record.value == value
    assert event["type"] == "Warning"
    assert REASON in reasons
    assert cluster.partition(PARTITION).epoch > before.epoch
    assert experiment.gap(PARTITION) <= AFTER_KILL
    experiment.assert_unnoticed(*(p for p in experiment.partitions if p != PARTITION))
