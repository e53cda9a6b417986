"""The `kvnode` command as a process: what it refuses to start on, and how it comes back from a damaged disk."""

import asyncio
import contextlib
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from grpc import aio

from kvcommon.slotmap import SlotMap
from kvcoord.contract import ClusterIdentity, Coordination, PartitionState
from kvcoord.open import open_coordination
from kvproto.v1 import kv_pb2, kv_pb2_grpc
from kvstore import sealed
from kvstore.store import Store

CLUSTER = "11111111-2222-3333-4444-555555555555"
PATIENCE = 60.0


@dataclass
class Nodes:
    """The command, with this test's folder."""

    folder: Path
    processes: dict[str, Process] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"sqlite://{self.folder}/coordination.db"

    def data(self, pod: str) -> Path:
        return self.folder / pod

    def errors(self, pod: str) -> Path:
        """What the pod's processes said."""
        return self.folder / f"{pod}.log"

    async def start(self, pod: str = "c-p0-0", **settings: str) -> Process:
        """A node on free ports; settings by flag name."""
        flags = {
            "pod": pod,
            "partition": "0",
            "cluster-id": CLUSTER,
            "coordination": self.url,
            "data-dir": str(self.data(pod)),
            "host": "127.0.0.1",
            "grpc-port": "0",
            "replication-port": "0",
            "http-port": "0",
            "pipeline-port": "0",
            **settings,
        }
        words = [word for name, value in flags.items() for word in (f"--{name}", value)]
        with self.errors(pod).open("ab") as errors:
            self.processes[pod] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "kvnode.main", *words, stdin=DEVNULL, stdout=DEVNULL, stderr=errors
            )
        return self.processes[pod]

    async def kill(self, pod: str) -> None:
        """SIGKILL."""
        process = self.processes.pop(pod)
        process.kill()
        await process.wait()

    async def refusal(self, **settings: str) -> str:
        """The one sentence that a node ends with; asserts that the exit code is 2."""
        process = await self.start(**settings)
        async with asyncio.timeout(PATIENCE):
            code = await process.wait()
        errors = self.errors("c-p0-0").read_text()
        assert code == 2, errors
        said = [line for line in errors.splitlines() if not line.startswith("{")]
        assert len(said) == 1, errors
        return said[0]


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    nodes = Nodes(tmp_path)
    yield nodes
    for process in nodes.processes.values():
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def make_disk(directory: Path, cluster: str = CLUSTER, partition: int = 0) -> None:
    """A directory as a node leaves it."""
    Store.open(directory, cluster_id=cluster, partition=partition).close()


async def test_another_clusters_disk_is_refused(nodes: Nodes) -> None:
    """Nothing on it is touched."""
    make_disk(nodes.data("c-p0-0"), cluster="another")
    before = (nodes.data("c-p0-0") / "meta").read_bytes()
    assert "belongs to cluster another" in await nodes.refusal()
    assert (nodes.data("c-p0-0") / "meta").read_bytes() == before


async def test_another_partitions_disk_is_refused(nodes: Nodes) -> None:
    """Of the same cluster."""
    make_disk(nodes.data("c-p0-0"), partition=1)
    assert "belongs to partition 1" in await nodes.refusal()


async def test_a_newer_releases_disk_is_refused(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is understood, so nothing is changed."""
    with monkeypatch.context() as newer:
        newer.setattr(sealed, "FORMAT_VERSION", 2)
        make_disk(nodes.data("c-p0-0"))
    assert "has format version 2" in await nodes.refusal()


async def test_a_disk_in_use_is_refused(nodes: Nodes) -> None:
    """By another process."""
    with Store.open(nodes.data("c-p0-0"), cluster_id=CLUSTER, partition=0):
        assert str(nodes.data("c-p0-0")) in await nodes.refusal()


async def test_a_folder_that_can_not_be_used_is_refused(nodes: Nodes) -> None:
    """A file stands where the folder should be."""
    nodes.data("c-p0-0").write_text("in the way")
    assert "--data-dir" in await nodes.refusal()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"partition": "many"}, "--partition"),
        ({"grpc-port": "70000"}, "--grpc-port"),
        ({"durability": "maybe"}, "--durability"),
        ({"coordination": "etcd://127.0.0.1"}, "etcd"),
        ({"colour": "blue"}, "--colour"),
    ],
)
async def test_a_bad_setting_is_refused(nodes: Nodes, settings: dict[str, str], said: str) -> None:
    """With its name."""
    assert said in await nodes.refusal(**settings)


async def test_a_damaged_log_is_not_served_and_rebuilt_once_excluded(nodes: Nodes) -> None:
    """The other two go on; the damaged one comes back under another incarnation, with everything."""
    coordination = open_coordination(nodes.url)
    await coordination.start()
    try:
        await coordination.create_identity(ClusterIdentity(CLUSTER, "c", 1, 3))
        await coordination.create_map(SlotMap.even(1))
        pods = tuple(f"c-p0-{i}" for i in range(3))
        for pod in pods:
            await nodes.start(pod)
        await _birth(coordination, pods)
        for i in range(20):
            await _put(coordination, b"k%d" % i)
        state = await _state(coordination, lambda s: s.leader is not None and len(s.in_sync) == 3)
        assert state.leader is not None
        leader = state.leader.replica.pod
        victim = next(r for r in state.in_sync if r.pod != leader)

        await nodes.kill(victim.pod)
        segment = min(nodes.data(victim.pod).glob("*.log"))
        damaged = bytearray(segment.read_bytes())
        damaged[len(damaged.rstrip(b"\0")) // 2] ^= 0xFF  # behind it are zeros written ahead
        segment.write_bytes(damaged)
        nodes.errors(victim.pod).unlink()
        await nodes.start(victim.pod)

        def rebuilt(state: PartitionState) -> bool:
            return victim not in state.in_sync and victim.pod in {r.pod for r in state.in_sync}

        await _state(coordination, rebuilt)
        await _put(coordination, b"after")
        for pod in pods:
            await nodes.kill(pod)
        said = nodes.errors(victim.pod).read_text()
        assert "this replica's disk is damaged" in said
        assert said.index("disk is damaged") < said.index("store wiped") < said.index('"serving"')
    finally:
        await coordination.close()
    with Store.open(nodes.data(victim.pod), cluster_id=CLUSTER, partition=0) as store:
        assert store.incarnation != victim.incarnation
        store.commit(store.end.index)
        assert all(store.get(b"k%d" % i) for i in range(20))


async def test_a_killed_node_keeps_what_only_the_page_cache_has(nodes: Nodes) -> None:
    """Durability `memory`: in the same boot of the host the disk is the same replica's, so the last in sync leads again."""
    coordination = open_coordination(nodes.url)
    await coordination.start()
    try:
        await coordination.create_identity(ClusterIdentity(CLUSTER, "c", 1, 1))
        await coordination.create_map(SlotMap.even(1))
        await nodes.start("c-p0-0", durability="memory")
        await _birth(coordination, ("c-p0-0",))
        await _put(coordination, b"before")
        await nodes.kill("c-p0-0")
        await nodes.start("c-p0-0", durability="memory")
        await _state(coordination, lambda s: s.epoch == 2)
        await _put(coordination, b"after")
        await nodes.kill("c-p0-0")
    finally:
        await coordination.close()
    with Store.open(nodes.data("c-p0-0"), cluster_id=CLUSTER, partition=0) as store:
        store.commit(store.end.index)
        assert store.get(b"before")
        assert store.get(b"after")


async def _birth(coordination: Coordination, pods: tuple[str, ...]) -> None:
    async with asyncio.timeout(PATIENCE):
        async for members in coordination.watch_members():
            if len(members) == len(pods):
                in_sync = tuple(members[p].replica for p in pods)
                await coordination.create_partition(0, PartitionState(0, None, in_sync, pods, min(2, len(pods))))
                return


async def _state(coordination: Coordination, fits: Callable[[PartitionState], bool]) -> PartitionState:
    async with asyncio.timeout(PATIENCE):
        async for versioned in coordination.watch_partition(0):
            if versioned is not None and fits(versioned.value):
                return versioned.value
    raise AssertionError("the coordination was closed")


async def _put(coordination: Coordination, key: bytes) -> None:
    """Through whoever leads, again until it is done."""
    async with asyncio.timeout(PATIENCE):
        while True:
            state = await _state(coordination, lambda s: s.leader is not None)
            assert state.leader is not None
            member = (await coordination.read_members()).get(state.leader.replica.pod)
            if member is not None:
                with contextlib.suppress(aio.AioRpcError):
                    async with aio.insecure_channel(member.grpc_address) as channel:
                        await kv_pb2_grpc.KeyValueStub(channel).Put(kv_pb2.PutRequest(key=key, value=key), timeout=5)
                        return
            await asyncio.sleep(0.05)
