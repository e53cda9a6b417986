"""The whole cluster on its hosts: ZooKeeper, nodes, a router; what it is doing, and when it is whole."""

import asyncio
import random
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kvcommon.slotmap import SlotMap
from kvcommon.slots import slot_of
from kvcoord.contract import Coordination, CoordinationUnavailableError, PartitionState
from kvcoord.open import open_coordination
from kvcoord.view import ClusterWatch
from kvlocal import birth
from kvlocal.launch import Command
from kvlocal.processes import Child, Exit
from kvlocal.shape import Shape
from tests.support.zookeeper import Ensemble, Place, ensure_installed
from tests.torture.clocks import WallClock
from tests.torture.disks import Disk
from tests.torture.network import Loopback, Network, Switched
from tests.torture.nodes import HostLauncher, Node, Server, exit_teller

CLIENTS = "clients"
ROUTER = "router"
MEMBERS = 3
PORTS = ("grpc", "replication", "pipeline", "http")
START_SECONDS = 120.0


@dataclass(slots=True)
class Scene:
    """Everything that can be hurt, and the ways to look at it."""

    shape: Shape
    folder: Path
    cluster_id: str
    network: Network
    ensemble: Ensemble
    nodes: dict[str, Node]
    router: Server
    coordination: Coordination
    watch: ClusterWatch
    exits: list[Exit] = field(default_factory=list)  # that nobody asked for
    zookeeper: asyncio.Lock = field(default_factory=asyncio.Lock)  # held by the fault that is at work on the ensemble
    owners: tuple[int, ...] = ()
    flowing: Callable[[int], bool] = lambda _: True  # whether a partition is taking writes at the moment

    @property
    def members(self) -> tuple[str, ...]:
        """Hosts of the ensemble's members."""
        return tuple(f"zk{i}" for i in range(1, MEMBERS + 1))

    def where(self, key: bytes) -> int:
        """The partition of a key."""
        return self.owners[slot_of(key)]

    def of(self, partition: int) -> list[Node]:
        """A partition's nodes."""
        return [node for node in self.nodes.values() if node.partition == partition]

    def leader(self, partition: int) -> Node | None:
        """Who leads a partition, as far as is known here."""
        state = self.watch.view.partitions.get(partition)
        leader = state.value.leader if state else None
        return self.nodes.get(leader.replica.pod) if leader else None

    def states(self) -> dict[int, PartitionState]:
        """The newest states that were seen."""
        return {p: versioned.value for p, versioned in self.watch.view.partitions.items()}

    def leaderships(self) -> int:
        """The sum of all partitions' epochs."""
        return sum(state.epoch for state in self.states().values())

    async def whole(self, seconds: float) -> float:
        """Seconds until every replica is in sync and every process ready. Raises TimeoutError with what is missing."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            missing = await self._missing()
            if not missing:
                return loop.time() - began
            if loop.time() - began > seconds:
                raise TimeoutError(f"after {seconds:.0f} s without faults: {'; '.join(missing)}")
            for node in self.nodes.values():
                node.start()  # one whose disk was too full to begin waits for a person otherwise
            await asyncio.sleep(0.1)

    async def _missing(self) -> list[str]:
        missing = []
        for partition in range(self.shape.partitions):
            try:
                state = await self.coordination.read_partition(partition)
            except CoordinationUnavailableError as error:
                return [f"coordination is away ({error})"]
            if state is None:
                missing.append(f"partition {partition} has no state")
            elif {r.pod for r in state.value.in_sync} < set(state.value.replicas):
                missing.append(f"partition {partition} has only {[r.pod for r in state.value.in_sync]} in sync")
        for server in (*self.nodes.values(), self.router):
            why = await server.ready()
            if why:
                missing.append(f"{server.name} is not ready: {why}")
        return missing

    async def close(self) -> None:
        """End every process."""
        await self.router.end()
        await asyncio.gather(*(node.end() for node in self.nodes.values()))
        await self.watch.close()
        await self.coordination.close()
        await asyncio.to_thread(self.ensemble.kill)
        self.network.close()


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [int(s.getsockname()[1]) for s in sockets]


@asynccontextmanager
async def open_scene(
    shape: Shape, folder: Path, *, namespaces: bool, rng: random.Random, tell: Callable[[Exit], None]
) -> AsyncIterator[Scene]:
    """A cluster that serves, ended with the block. Raises TimeoutError when it does not come up."""
    ensure_installed()
    pods = shape.pods
    zk = [f"zk{i}" for i in range(1, MEMBERS + 1)]
    network: Network = Switched([CLIENTS, ROUTER, *zk, *pods]) if namespaces else Loopback()
    scene = _build(shape, folder, network, zk, rng, tell)
    try:
        await asyncio.to_thread(scene.ensemble.start)
        await scene.coordination.start()
        for node in scene.nodes.values():
            node.start()
        async with asyncio.timeout(START_SECONDS):
            await birth.give_birth(scene.coordination, scene.cluster_id, shape)
        scene.owners = SlotMap.even(shape.partitions).owners
        scene.watch.start()
        scene.router.start()
        await scene.whole(START_SECONDS)
        yield scene
    finally:
        await scene.close()


def _build(
    shape: Shape, folder: Path, network: Network, zk: Sequence[str], rng: random.Random, tell: Callable[[Exit], None]
) -> Scene:
    (folder / "logs").mkdir(parents=True)
    (folder / "clocks").mkdir()
    ensemble = Ensemble(folder / "zookeeper", MEMBERS, [Place(network.address(h), network.command(h)) for h in zk])
    cluster_id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
    url = ensemble.url(f"/kvcluster/{cluster_id}")
    coordination = open_coordination(url)
    exits: list[Exit] = []

    def told(one: Exit) -> None:
        exits.append(one)
        tell(one)

    nodes = {pod: _node(pod, shape, folder, network, url, cluster_id, rng, told) for pod in shape.pods}
    ports = dict(zip(("grpc", "http"), free_ports(2), strict=True))
    mine: list[Exit] = []
    arguments = _common(url, cluster_id, network.address(ROUTER), ports)
    command = Command(ROUTER, "kvrouter.main", arguments, folder / "logs" / "router.log")
    launcher = HostLauncher(network, ROUTER, None, random.Random(rng.random()))
    child = Child(command, exit_teller(mine, told), launcher)
    router = Server(ROUTER, network.address(ROUTER), ports, child, mine)
    watch = ClusterWatch(coordination)
    return Scene(shape, folder, cluster_id, network, ensemble, nodes, router, coordination, watch, exits)


def _node(
    pod: str, shape: Shape, folder: Path, network: Network, url: str, cluster_id: str, rng: random.Random,
    told: Callable[[Exit], None],
) -> Node:  # fmt: skip
    address = network.address(pod)
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    disk = Disk(folder / "disks" / pod, mounted=network.can_hurt)
    clock = WallClock(folder / "clocks" / pod)
    partition = int(pod.removeprefix(f"{shape.name}-p").partition("-")[0])
    own = (
        "--pod", pod, "--partition", str(partition), "--data-dir", str(disk.folder / "data"), "--advertise-host", address,
        "--replication-port", str(ports["replication"]), "--pipeline-port", str(ports["pipeline"]),
    )  # fmt: skip
    command = Command(
        pod, "kvnode.main", (*_common(url, cluster_id, address, ports), *own), folder / "logs" / f"{pod}.log"
    )
    exits: list[Exit] = []
    child = Child(command, exit_teller(exits, told), HostLauncher(network, pod, clock, random.Random(rng.random())))
    return Node(pod, address, ports, child, exits, partition=partition, disk=disk, clock=clock)


def _common(url: str, cluster_id: str, address: str, ports: dict[str, int]) -> tuple[str, ...]:
    return (
        "--coordination", url, "--cluster-id", cluster_id, "--host", address,
        "--grpc-port", str(ports["grpc"]), "--http-port", str(ports["http"]),
    )  # fmt: skip
