"""One partition's nodes in this process: real stores, real TCP and gRPC on free ports, coordination in memory."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grpc import aio

from kvcommon.clock import SystemClock
from kvcommon.slotmap import SlotMap
from kvcoord.contract import ClusterIdentity, MemberInfo, PartitionState, Versioned
from kvcoord.memory import MemoryCoordination, MemoryStore
from kvlocal.ports import free_ports
from kvnode.main import Node, lives
from kvnode.settings import NodeSettings
from kvproto.errors import error_from_rpc
from kvproto.v1 import cluster_pb2_grpc, kv_pb2, kv_pb2_grpc
from kvstore.store import Store, StoreOptions
from tests.support.faulty_files import FaultyFiles

CLUSTER = "11111111-2222-3333-4444-555555555555"
PATIENCE = 60.0


@dataclass
class Running:
    """A node's run."""

    task: asyncio.Task[None]
    stop: asyncio.Event
    coordination: MemoryCoordination
    store: Store | None = None  # once it is open


class NodeCluster:
    """Start it with `node_cluster`."""

    def __init__(self, folder: Path, pods: int, partitions: int, options: StoreOptions) -> None:
        self.folder = folder
        self.options = options
        self.pods = tuple(f"c-p0-{i}" for i in range(pods))
        self.partitions = partitions
        self.store = MemoryStore()
        self.coordination = self.store.session("test")
        self.running: dict[str, Running] = {}
        self.runs = 0
        self.files: dict[str, FaultyFiles] = {}  # of pods whose disk is not a real one
        self._channels: dict[str, aio.Channel] = {}

    # --- life --------------------------------------------------------------------------------------------------------

    def start(self, pod: str) -> None:
        """Start a node, or start it again on its disk."""
        self.runs += 1
        stop, coordination = asyncio.Event(), self.store.session(f"{pod} {self.runs}")
        task = asyncio.create_task(self._serve(pod, stop, coordination), name=pod)
        self.running[pod] = Running(task, stop, coordination)

    async def _serve(self, pod: str, stop: asyncio.Event, coordination: MemoryCoordination) -> None:
        settings = NodeSettings(
            pod=pod,
            partition=0,
            cluster_id=CLUSTER,
            coordination="memory",
            data_dir=str(self.folder / pod),
            host="127.0.0.1",
            grpc_port=0,
            replication_port=0,
            pipeline_port=0,
            redis_port=free_ports(1)[0],  # 0 would be none
            http_port=0,
            min_free_mib=1,
        )
        files = self.files.get(pod)

        def opening() -> Store:
            store = Store.open(
                settings.data_dir, cluster_id=CLUSTER, partition=0, pod=pod, files=files, options=self.options
            )
            self.running[pod].store = store
            return store

        await coordination.start()
        with ThreadPoolExecutor(1) as executor:
            node = Node(settings, opening(), coordination, executor, SystemClock())
            try:
                await lives(node, opening, stop)
                await coordination.close()
            finally:
                coordination.crash()

    async def kill(self, pod: str) -> None:
        """End it at once: nothing is handed over, its registration stays for a while."""
        task = self.running.pop(pod).task
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def end(self, pod: str) -> None:
        """Ask it to end, as SIGTERM does."""
        running = self.running.pop(pod)
        running.stop.set()
        await running.task

    def wipe(self, pod: str) -> None:
        """An ended node's disk is lost."""
        shutil.rmtree(self.folder / pod)

    async def open(self) -> None:
        """Start all and give birth to the partition."""
        await self.coordination.start()
        await self.coordination.create_identity(ClusterIdentity(CLUSTER, "c", self.partitions, len(self.pods)))
        await self.coordination.create_map(SlotMap.even(self.partitions))
        for pod in self.pods:
            self.start(pod)
        members = await self._registered()
        in_sync = tuple(members[p].replica for p in self.pods)
        await self.coordination.create_partition(0, PartitionState(0, None, in_sync, self.pods, min(2, len(self.pods))))

    async def _registered(self) -> Mapping[str, MemberInfo]:
        """What all nodes have registered. Raises what a node ended with before it could."""

        async def all_members() -> Mapping[str, MemberInfo]:
            async for members in self.coordination.watch_members():
                if len(members) == len(self.pods):
                    return members
            raise AssertionError("the coordination was closed")

        registered = asyncio.create_task(all_members())
        nodes = [running.task for running in self.running.values()]
        await asyncio.wait([registered, *nodes], return_when=asyncio.FIRST_COMPLETED)
        for node in nodes:
            if node.done():
                registered.cancel()
                await node
        return await registered

    async def close(self) -> None:
        """End all that is left."""
        for channel in self._channels.values():
            await channel.close()
        for pod in list(self.running):
            await self.kill(pod)
        await self.coordination.close()

    # --- what a test awaits ------------------------------------------------------------------------------------------

    async def state(self, fits: Callable[[PartitionState], bool] = lambda _: True) -> Versioned[PartitionState]:
        """The first state from now on that fits."""
        async with asyncio.timeout(PATIENCE):
            async for versioned in self.coordination.watch_partition(0):
                if versioned is not None and fits(versioned.value):
                    return versioned
        raise AssertionError("the coordination was closed")

    async def leader(self, *, not_pod: str = "", above: int = 0) -> str:
        """The pod that leads an epoch above this one."""

        def fits(state: PartitionState) -> bool:
            return state.leader is not None and state.leader.replica.pod != not_pod and state.epoch > above

        state = (await self.state(fits)).value
        assert state.leader is not None
        return state.leader.replica.pod

    async def all_in_sync(self) -> PartitionState:
        """Until every pod is in sync."""
        return (await self.state(lambda s: {r.pod for r in s.in_sync} == set(self.pods))).value

    async def member(self, pod: str) -> MemberInfo:
        """Who a pod says it is."""
        return (await self.coordination.read_members())[pod]

    async def channel(self, pod: str) -> aio.Channel:
        """A channel to the pod's gRPC port."""
        address = (await self.member(pod)).grpc_address
        if address not in self._channels:
            self._channels[address] = aio.insecure_channel(address)
        return self._channels[address]

    async def kv(self, pod: str) -> Any:
        """A KeyValue stub."""
        return kv_pb2_grpc.KeyValueStub(await self.channel(pod))

    async def cluster(self, pod: str) -> Any:
        """A Cluster stub."""
        return cluster_pb2_grpc.ClusterStub(await self.channel(pod))

    async def put(self, key: bytes, value: bytes) -> Any:
        """A write through whoever leads, again until it is done."""

        async def once() -> Any:
            stub = await self.kv(await self.leader())
            return await stub.Put(kv_pb2.PutRequest(key=key, value=value), timeout=5)

        return await self.eventually(once)

    async def get(self, pod: str, key: bytes, **how: Any) -> Any:
        """A read by this pod, again until it can."""

        async def once() -> Any:
            stub = await self.kv(pod)
            return await stub.Get(kv_pb2.GetRequest(key=key, **how), timeout=5)

        return await self.eventually(once)

    @staticmethod
    async def eventually(once: Callable[[], Awaitable[Any]]) -> Any:
        """Until the call succeeds."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    return await once()
                except (aio.AioRpcError, KeyError):
                    await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def node_cluster(
    folder: Path,
    pods: int = 3,
    partitions: int = 1,
    files: Mapping[str, FaultyFiles] | None = None,
    options: StoreOptions | None = None,
) -> AsyncIterator[NodeCluster]:
    """Nodes of partition 0 of a new cluster, closed at the end. `files` are the disks of pods that have no real one."""
    cluster = NodeCluster(folder, pods, partitions, options or StoreOptions())
    cluster.files.update(files or {})
    try:
        await cluster.open()
        yield cluster
    finally:
        await cluster.close()


async def refusal(call: Awaitable[Any]) -> tuple[aio.AioRpcError, kv_pb2.Error]:
    """The status and the Error of a call that must fail."""
    try:
        answer = await call
    except aio.AioRpcError as e:
        return e, error_from_rpc(e)
    raise AssertionError(f"answered with {answer}")
