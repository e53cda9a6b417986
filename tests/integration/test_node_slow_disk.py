"""Slow disks under real nodes: seen in a metric, told to the operator, and no reason for a partition to be slow or to stand still."""

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kvlocal import probe
from kvnode.core import pace
from tests.support.faulty_files import FaultyFiles
from tests.support.node_cluster import NodeCluster, node_cluster

PODS = ("c-p0-0", "c-p0-1", "c-p0-2")
SLOW = 0.4  # seconds


class SlowFiles(FaultyFiles):
    """Syncs of the log's thread take `seconds`, and wait while `goes_on` is not set."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.goes_on = threading.Event()
        self.goes_on.set()

    def sync_step(self) -> None:
        if threading.current_thread().name == "log":
            time.sleep(self.seconds)
            self.goes_on.wait()
        super().sync_step()


@contextlib.asynccontextmanager
async def loaded(nodes: NodeCluster) -> AsyncIterator[None]:
    """Writes, one after the other, while the block runs."""

    async def write() -> None:
        for i in range(1_000_000):
            await nodes.put(b"k%d" % (i % 100), b"v")

    load = asyncio.create_task(write())
    try:
        yield
    finally:
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)


async def trouble(nodes: NodeCluster, text: str) -> None:
    """Until some node tells the operator this."""
    async with asyncio.timeout(30):
        async for members in nodes.coordination.watch_members():
            if any(text in member.trouble for member in members.values()):
                return


async def metric(nodes: NodeCluster, pod: str, name: str) -> float:
    host, _, port = (await nodes.member(pod)).http_address.partition(":")
    answer = await probe.ask(int(port), "/metrics", host=host)
    assert answer is not None
    found = re.search(rf"^kvcluster_node_{name}{{.*}} (\S+)$", answer.body, re.MULTILINE)
    assert found, answer.body
    return float(found[1])


async def test_a_leader_with_a_slow_disk_hands_over_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sooner here than in life; the next leader tells whose disk it is, and the metric shows how long syncs take."""
    monkeypatch.setattr(pace, "SETTLED", 2.0)
    monkeypatch.setattr(pace, "SUSTAINED", 1.0)
    disks = {pod: SlowFiles() for pod in PODS}
    async with node_cluster(tmp_path, files=disks) as nodes:
        await nodes.put(b"k", b"v")
        await nodes.all_in_sync()
        slow = await nodes.leader()
        disks[slow].seconds = SLOW
        async with loaded(nodes):
            await nodes.leader(not_pod=slow)
            await trouble(nodes, f"SlowDisk: a write of {slow} takes 0.")
        assert await metric(nodes, slow, "sync_seconds_sum") > 5 * SLOW
        assert (await nodes.all_in_sync()).in_sync[-1].pod == slow, "the last to lead again"


async def test_a_leader_whose_disk_hangs_hands_over_and_writes_go_on(tmp_path: Path) -> None:
    """Nothing fails, so nobody would ever be told; it says so itself, and is in sync again once its disk goes on."""
    disks = {pod: SlowFiles() for pod in PODS}
    async with node_cluster(tmp_path, files=disks) as nodes:
        await nodes.put(b"k", b"v")
        before = await nodes.all_in_sync()
        hung = await nodes.leader()
        try:
            disks[hung].goes_on.clear()
            await nodes.put(b"k", b"written while it hangs")
            assert await nodes.leader(above=before.epoch) != hung
            await trouble(nodes, "SlowDisk: its disk has not finished a sync for 2 s")
            assert await metric(nodes, hung, "sync_waiting_seconds") > 2.0
        finally:
            disks[hung].goes_on.set()
        await nodes.all_in_sync()
        assert (await nodes.get(hung, b"k", read_mode="READ_MODE_ANY")).value == b"written while it hangs"
