"""The whole cluster on its hosts: ZooKeeper, nodes, a router; what it is doing, and when it is whole."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kvcommon.slotmap import SlotMap
from kvcommon.slots import slot_of
from kvcoord.contract import Coordination, CoordinationUnavailableError, PartitionState
from kvcoord.open import open_coordination
from kvcoord.view import ClusterWatch
from kvlocal import birth
from kvlocal.launch import Command, Launcher
from kvlocal.nursery import Nursery
from kvlocal.ports import free_ports
from kvlocal.processes import Child, Exit
from kvlocal.shape import Shape
from tests.support.zookeeper import Ensemble, Place
from tests.torture.clocks import RATE_ERROR, HostClock
from tests.torture.disks import FOLDER, Disk
from tests.torture.network import Loopback, Network, Switched
from tests.torture.nodes import HostLauncher, Node, Server, exit_teller

CLIENTS = "clients"
ROUTER = "router"
MEMBERS = 3
START_SECONDS = 120.0
UPKEEP = (
    "--segment-bytes",
    str(32 << 10),
    "--tombstone-retention",
    "5",
)  # so small that each round compacts many times


@dataclass(slots=True)
class Scene:
    """Everything that can be hurt, and the ways to look at it."""

    shape: Shape
    folder: Path
    cluster_id: str
    network: Network
    disks: type[Disk]
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


@asynccontextmanager
async def open_scene(
    shape: Shape,
    folder: Path,
    *,
    namespaces: bool,
    disks: type[Disk],
    durability: str,
    rng: random.Random,
    tell: Callable[[Exit], None],
) -> AsyncIterator[Scene]:
    """A cluster that serves, ended with the block. Raises TimeoutError when it does not come up."""
    zk = [f"zk{i}" for i in range(1, MEMBERS + 1)]
    network: Network = Switched([CLIENTS, ROUTER, *zk, *shape.pods]) if namespaces else Loopback()
    nursery = Nursery()
    exits: list[Exit] = []

    def told(one: Exit) -> None:
        exits.append(one)
        tell(one)

    scene = _Builder(shape, folder, network, disks, durability, nursery, rng, told).scene(zk)
    scene.exits = exits
    try:
        await nursery.ready()
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
        nursery.close()


@dataclass(slots=True)
class _Builder:
    """What every process of a new cluster needs to be made."""

    shape: Shape
    folder: Path
    network: Network
    disks: type[Disk]
    durability: str
    nursery: Launcher
    rng: random.Random
    tell: Callable[[Exit], None]
    cluster_id: str = ""
    url: str = ""

    def scene(self, members: Sequence[str]) -> Scene:
        """Everything made, nothing started."""
        for part in ("logs", "clocks"):
            (self.folder / part).mkdir(parents=True)
        places = [Place(self.network.address(host), self.network.command(host)) for host in members]
        ensemble = Ensemble(self.folder / "zookeeper", MEMBERS, places)
        self.cluster_id = str(uuid.UUID(int=self.rng.getrandbits(128), version=4))
        self.url = ensemble.url(f"/kvcluster/{self.cluster_id}")
        coordination = open_coordination(self.url)
        nodes = {pod: self._node(pod) for pod in self.shape.pods}
        watch = ClusterWatch(coordination)
        return Scene(
            self.shape,
            self.folder,
            self.cluster_id,
            self.network,
            self.disks,
            ensemble,
            nodes,
            self._router(),
            coordination,
            watch,
        )

    def _node(self, pod: str) -> Node:
        partition = int(pod.removeprefix(f"{self.shape.name}-p").partition("-")[0])
        disk = self.disks(self.folder / FOLDER / pod)
        clock, ports, exits = self._clock(pod), _ports("grpc", "replication", "pipeline", "http"), list[Exit]()
        own = (
            "--pod", pod, "--partition", str(partition), "--data-dir", str(disk.folder / "data"),
            "--advertise-host", self.network.address(pod), "--durability", self.durability, *UPKEEP,
        )  # fmt: skip
        child = self._child(pod, "kvnode.main", ports, own, clock, exits)
        return Node(pod, self.network.address(pod), ports, child, exits, partition=partition, disk=disk, clock=clock)

    def _router(self) -> Server:
        ports, exits = _ports("grpc", "http"), list[Exit]()
        child = self._child(ROUTER, "kvrouter.main", ports, (), self._clock(ROUTER), exits)
        return Server(ROUTER, self.network.address(ROUTER), ports, child, exits)

    def _clock(self, host: str) -> HostClock:
        clock = HostClock(self.folder / "clocks" / host)
        clock.run_at(self.rng.choice((-RATE_ERROR, RATE_ERROR, self.rng.uniform(-RATE_ERROR, RATE_ERROR))))
        return clock

    def _child(
        self, host: str, module: str, ports: dict[str, int], own: tuple[str, ...], clock: HostClock, exits: list[Exit]
    ) -> Child:
        listening = [word for name, port in ports.items() for word in (f"--{name}-port", str(port))]
        arguments = ("--coordination", self.url, "--cluster-id", self.cluster_id, "--host", self.network.address(host))
        command = Command(host, module, (*arguments, *listening, *own), self.folder / "logs" / f"{host}.log")
        rng = random.Random(self.rng.random())
        launcher = HostLauncher(self.nursery, self.network.namespace(host), clock, rng)
        return Child(command, exit_teller(exits, self.tell), launcher)


def _ports(*names: str) -> dict[str, int]:
    """Ports of loopback that nobody has now; in namespaces of their own they are free as well."""
    return dict(zip(names, free_ports(len(names)), strict=True))
