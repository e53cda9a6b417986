"""Leaders killed under load from clients that are not ours: nothing acknowledged is lost, clients recover by themselves.

Three loads run at once through one failover: go-redis's cluster client with its default settings, and redis-py's cluster
client on the nodes and plain client on the router, which repeat nothing by themselves, so that what they saw can be
judged as a history.
"""

import json
import random
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition, Thread
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from kvcommon.slotmap import SlotMap
from kvcommon.slots import slot_of
from tests.redis.doors import RedisDoor
from tests.redis.golang import build_load
from tests.redis.ours import BlockingCluster
from tests.support.history import Kind
from tests.support.linearizability import check, format_violation
from tests.support.workload import BackgroundWorkload, Plan, Report, Workload, contended_keys

pytestmark = pytest.mark.xdist_group("redis clients")

KEYS = 50
FLOW = 60  # acknowledged writes that are waited for
FLOW_SECONDS = 60.0
MIX = ((Kind.GET, 40), (Kind.PUT, 35), (Kind.UPDATE, 10), (Kind.CREATE, 8), (Kind.DELETE, 7))


def partition_of(key: bytes) -> int:
    """Of the whole cluster's two."""
    return SlotMap.even(2).owners[slot_of(key)]


@dataclass
class GoLoad:
    """The Go program while it runs, and what it has told."""

    process: "subprocess.Popen[str]"
    acknowledged: Counter[str] = field(default_factory=Counter)
    told: list[dict[str, Any]] = field(default_factory=list)
    changed: Condition = field(default_factory=Condition)

    def listen(self) -> None:
        """Read what it tells until it ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            with self.changed:
                if event["event"] == "acknowledged":
                    self.acknowledged[event["key"]] = event["count"]
                else:
                    self.told.append(event)
                self.changed.notify_all()

    @property
    def total(self) -> int:
        """Acknowledged writes of all workers, so far as told."""
        with self.changed:
            return self.acknowledged.total()

    def flow(self, count: int) -> None:
        """Until, from now on, every worker has so many more writes acknowledged."""
        with self.changed:
            target = {f"go-{i}": self.acknowledged[f"go-{i}"] + count for i in range(8)}
            flowed = self.changed.wait_for(
                lambda: all(self.acknowledged[key] >= n for key, n in target.items()), FLOW_SECONDS
            )
        assert flowed, f"go-redis writes no more: {self.acknowledged}, {self.told[-3:]}"

    def finish(self) -> dict[str, Any]:
        """Have it read every key once more and end; the sums that it gives."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(FLOW_SECONDS) == 0
        with self.changed:
            assert self.changed.wait_for(lambda: self.told and self.told[-1]["event"] == "end", FLOW_SECONDS)
        return self.told[-1]


@dataclass
class Struck:
    """What all loads saw of one failover."""

    killed: str
    followed: str
    go: dict[str, Any]
    go_told: list[dict[str, Any]]
    report: Report
    at: float
    rate: float


@pytest.fixture(scope="module")
def struck(whole_cluster: BlockingCluster, tmp_path_factory: pytest.TempPathFactory) -> Struck:
    """The leader of partition 0 is killed under load, another follows it, and the dead one comes back."""
    cluster = whole_cluster
    program = build_load(tmp_path_factory.mktemp("go"))
    with go_load(program, cluster) as go, BackgroundWorkload(lambda: _workload(cluster)) as load:
        go.flow(FLOW)
        began, told = load.clock(), go.total
        _flow(load)
        leader, epoch = cluster.leader(0), cluster.epoch(0)
        at = load.clock()
        rate = load.timeline.rate(began, at) + (go.total - told) / (at - began)

        cluster.kill(leader)
        followed, _ = cluster.wait_next_leader(0, epoch)
        go.flow(FLOW)
        _flow(load)
        cluster.mend(leader, 0)
        go.flow(FLOW)
        _flow(load)

        report = load.finish()
        sums = go.finish()
    return Struck(leader, followed, sums, go.told, report, at, rate)


def test_no_acknowledged_write_is_lost_by_a_cluster_client_in_go(struck: Struck) -> None:
    """Each worker always reads what it wrote last, and goes on writing after the failover."""
    assert struck.followed != struck.killed
    print(f"go-redis: {struck.go}")
    assert [event["text"] for event in struck.go_told if event["event"] == "lost"] == []
    assert struck.go["lost"] == 0
    assert struck.go["writes"] >= 8 * 3 * FLOW


def test_what_redis_py_saw_through_nodes_and_router_is_linearizable(struck: Struck) -> None:
    """The last value of every key is read at the end, so a lost write would be seen."""
    report = struck.report
    print(report.summary())
    for partition in range(2):
        gap = report.timeline.gap(partition, struck.at, report.stopped)
        print(f"p{partition}: longest gap after the kill {gap:.2f} s")
    for trouble in report.troubles[:10]:
        print(f"{trouble.invoked - struck.at:+.2f} s {trouble}")
    assert struck.rate >= 100.0, f"only {struck.rate:.0f} acknowledged writes/s before the kill"
    assert [format_violation(violation) for violation in check(report.history)] == []


def test_a_partition_that_lost_nobody_fails_nothing(struck: Struck, whole_cluster: BlockingCluster) -> None:
    """Neither a refusal nor an unknown outcome for keys of partition 1.

    But for what redis-py's cluster client does to itself: when one node says CLUSTERDOWN, and at every fifth MOVED, it closes
    its connections to all nodes, whatever is under way on them; and it asks the dead one for the map, too.
    """
    host, port = dead = whole_cluster.address(struck.killed)
    itself = {  # met while it reads, while it writes, or of the dead one
        "RedisCluster: ConnectionError: Connection closed by server.",
        "RedisCluster: ConnectionError: Error UNKNOWN while writing to socket. Connection lost.",
        f"RedisCluster: ConnectionError: Error 111 connecting to {host}:{port}. Connect call failed {dead}.",
    }
    troubles = [trouble for trouble in struck.report.troubles if trouble.partition == 1]
    assert [str(trouble) for trouble in troubles if trouble.reason not in itself] == []


def test_the_router_waits_a_failover_out(struck: Struck) -> None:
    """What was certainly not done it sends again; its clients see at most what was under way as unknown."""
    refusals = [t for t in struck.report.troubles if "ClusterDown" in t.reason and "Not done: no leader" in t.reason]

    assert refusals == []


class go_load:  # noqa: N801 - a context manager
    """The Go program on the cluster's nodes."""

    def __init__(self, program: Path, cluster: BlockingCluster) -> None:
        self._command = [str(program), ",".join(f"{host}:{port}" for host, port in cluster.nodes)]

    def __enter__(self) -> GoLoad:
        self._load = GoLoad(subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        self._listener = Thread(target=self._load.listen, daemon=True)
        self._listener.start()
        return self._load

    def __exit__(self, *_: object) -> None:
        self._load.process.kill()
        self._load.process.wait()
        self._listener.join()


def _flow(load: BackgroundWorkload) -> None:
    """Until each partition has had enough writes acknowledged from now on."""
    began = load.clock()
    while any(load.acknowledged_since(partition, began) < FLOW for partition in range(2)):
        assert load.clock() < began + FLOW_SECONDS, f"redis-py writes no more: {load.workload.troubles[-3:]}"
        time.sleep(0.02)  # the load tells nobody


async def _workload(cluster: BlockingCluster) -> Workload:
    """Four clients on keys they fight over: two straight to the nodes, two through the router."""
    host, port = cluster.nodes[0]
    once: dict[str, Any] = {"retry": Retry(NoBackoff(), 0), "socket_timeout": 15}
    clients: list[Any] = [RedisCluster(host=host, port=port, **once) for _ in range(2)]
    for client in clients:
        await client.initialize()
    host, port = cluster.router
    clients += [Redis(host=host, port=port, max_connections=50, **once) for _ in range(2)]
    keys = contended_keys(KEYS, partition_of, range(2), "history")
    plan = Plan(rate=400.0, mix=MIX, conditional=0.0)
    return Workload([RedisDoor(c) for c in clients], keys, partition_of, plan=plan, rng=random.Random(1))
