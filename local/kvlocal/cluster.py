"""A cluster of real processes on this machine: nodes, a router, coordination, and the operator's part of birth."""

import asyncio
import random
import signal
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kvcommon.errors import KVClusterError
from kvcoord.contract import Coordination, CoordinationUnavailableError, Death, PartitionState
from kvcoord.open import open_coordination
from kvlocal import birth, probe
from kvlocal.folder import Folder, Remembered, reconcile
from kvlocal.launch import Command, Launcher
from kvlocal.nursery import Nursery
from kvlocal.ports import HOST, assign
from kvlocal.processes import Child, Exit
from kvlocal.shape import Shape

START_SECONDS = 60.0
END_SECONDS = 8.0  # a node hands over for at most 5 s
POLL_SECONDS = 0.05
NODE_PORTS = ("grpc", "replication", "pipeline", "redis", "http")


class ClusterStartError(KVClusterError):
    """The cluster did not come up: says which process did not and why."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run a cluster, beside its shape."""

    zookeeper: str = ""  # host:port,...; empty: a SQLite file
    router_ports: Mapping[str, int] | None = None  # wanted, by "grpc", "http" and "redis"
    with_router: bool = True
    word_of_death: bool = False  # tell coordination of a process's death at once, as the operator does in Kubernetes
    node_arguments: tuple[str, ...] = ()  # more flags for every node


class LocalCluster:
    """Starts, watches, hurts and ends one cluster. An async context manager: enters when serving, leaves when all ended."""

    def __init__(
        self,
        shape: Shape,
        folder: Path,
        settings: Settings | None = None,
        *,
        on_exit: Callable[[Exit], None] = lambda _: None,
        rng: random.Random | None = None,
        launcher: Launcher | None = None,
    ) -> None:
        """`on_exit` hears of every process that ended other than by `stop`; `launcher` (a fork server) is closed with it."""
        self.shape = shape
        self.settings = settings or Settings()
        self.folder = Folder(folder)
        self._on_exit = on_exit
        self._rng = rng or random.Random()
        self._launcher = launcher
        self._children: dict[str, Child] = {}
        self._reports: set[asyncio.Task[None]] = set()
        self._coordination: Coordination | None = None
        self._remembered: Remembered | None = None
        self.is_new = True

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # -- what it is ------------------------------------------------------------------------------------------------

    @property
    def remembered(self) -> Remembered:
        """Id and ports, once started."""
        if self._remembered is None:
            raise KVClusterError("the cluster was not started")
        return self._remembered

    @property
    def coordination(self) -> Coordination:
        """This process's own connection to coordination, once started."""
        if self._coordination is None:
            raise KVClusterError("the cluster was not started")
        return self._coordination

    @property
    def names(self) -> tuple[str, ...]:
        """Every process: the pods, then the router."""
        return (*self.shape.pods, *([self.shape.router] if self.settings.with_router else []))

    def port(self, name: str, kind: str) -> int:
        """A process's port; `kind` is grpc, http, redis or (nodes) replication and pipeline."""
        return self.remembered.ports[f"{name}/{kind}"]

    def address(self, name: str) -> str:
        """A process's gRPC address, host:port."""
        return f"{HOST}:{self.port(name, 'grpc')}"

    @property
    def router_address(self) -> str:
        """Where clients go, host:port."""
        return self.address(self.shape.router)

    def pid(self, name: str) -> int | None:
        """Process id; None while it is down."""
        return self._children[name].pid

    # -- from start to stop ----------------------------------------------------------------------------------------

    async def start(self, on_step: Callable[[str], None] = lambda _: None) -> None:
        """Start every process and wait until all are ready; `on_step` hears of what is done.

        Raises ConfigurationError for a folder or spec that can't be used, ClusterStartError when it takes too long.
        """
        self.folder.__enter__()
        try:
            launcher = self._launcher = self._launcher or Nursery()
            self._prepare()
            async with asyncio.timeout(START_SECONDS):
                self._coordination = await self._open_coordination()
                await launcher.ready()
                for name in self.names:
                    self._children[name] = Child(self._command(name), self._exited, launcher)
                    self._children[name].start()
                on_step(f"{len(self.names)} processes started")
                born = await birth.give_birth(self._coordination, self.remembered.cluster_id, self.shape)
            on_step(f"{len(born)} partition{'s' * (len(born) != 1)} born" if born else "its data found again")
            await self.wait_ready()
            on_step("all ready")
        except TimeoutError:
            reason = await self._unready()
            await self.stop()
            raise ClusterStartError(f"the cluster did not start within {START_SECONDS:.0f} s: {reason}") from None
        except BaseException:
            await self.stop()
            raise

    def _prepare(self) -> None:
        stored = self.folder.recall()
        self.is_new = stored is None
        known = reconcile(self.folder.path, stored, self.shape, self.settings.zookeeper, uuid.uuid4())
        names = [f"{pod}/{kind}" for pod in self.shape.pods for kind in NODE_PORTS]
        if self.settings.with_router:
            names += [f"{self.shape.router}/grpc", f"{self.shape.router}/http", f"{self.shape.router}/redis"]
        wanted = {f"{self.shape.router}/{k}": p for k, p in (self.settings.router_ports or {}).items() if p}
        ports = assign(names, known.ports, wanted, self._rng)
        self._remembered = replace(known, ports={**known.ports, **ports})

        for pod in self.shape.pods:
            self.folder.run(pod).touch()  # as the kubelet does: a node writes to it only if it is there

    async def _open_coordination(self) -> Coordination:
        coordination = open_coordination(self.folder.coordination_url(self.remembered))
        await coordination.start()
        await coordination.read_identity()  # an answer: a mistyped --zookeeper is not to be remembered
        self.folder.remember(self.remembered)
        return coordination

    def _command(self, name: str) -> Command:
        common = (
            "--coordination", self.folder.coordination_url(self.remembered),
            "--cluster-id", self.remembered.cluster_id,
            "--host", HOST,
            "--grpc-port", str(self.port(name, "grpc")),
            "--http-port", str(self.port(name, "http")),
        )  # fmt: skip
        log = self.folder.log(name)
        if name == self.shape.router:
            redis = ("--redis-port", str(self.port(name, "redis")))
            return Command(name, "kvrouter.main", (*common, *redis), log)
        own = (
            "--pod", name,
            "--partition", str(self._partition_of(name)),
            "--data-dir", str(self.folder.data(name)),
            "--advertise-host", HOST,
            "--replication-port", str(self.port(name, "replication")),
            "--pipeline-port", str(self.port(name, "pipeline")),
            "--redis-port", str(self.port(name, "redis")),
            "--durability", self.shape.durability,
        )  # fmt: skip
        environment = {"KV_TERMINATION_LOG": str(self.folder.run(name))}
        return Command(name, "kvnode.main", (*common, *own, *self.settings.node_arguments), log, environment)

    def _exited(self, one: Exit) -> None:
        if self.settings.word_of_death and one.name in self.shape.pods:
            report = asyncio.create_task(self._report_death(one.name, self._run_of(one.name)))
            self._reports.add(report)
            report.add_done_callback(self._reports.discard)
        self._on_exit(one)

    def _run_of(self, pod: str) -> str:
        """Which run a node is or was, as it wrote down itself; empty when it never got so far."""
        file = self.folder.run(pod)
        return file.read_text().strip() if file.exists() else ""

    async def _report_death(self, pod: str, run: str) -> None:
        """Rule 7: this run's process is terminated; its parent has seen it end."""
        with suppress(CoordinationUnavailableError):  # then its promises run out by themselves
            versioned = await self.coordination.read_partition(self._partition_of(pod))
            if run and versioned:
                await self.coordination.report_death(Death(pod, run, "", versioned.value.epoch))

    def _partition_of(self, pod: str) -> int:
        return int(pod.removeprefix(f"{self.shape.name}-p").partition("-")[0])

    async def stop(self) -> None:
        """End every process, the router first, then all nodes at once; give the folder back."""
        try:
            router = self._children.get(self.shape.router)
            if router:
                await router.end(END_SECONDS)
            await asyncio.gather(*(child.end(END_SECONDS) for child in self._children.values()))
            for report in self._reports:
                report.cancel()
            if self._coordination:
                await self._coordination.close()
            if self._launcher:
                self._launcher.close()
        finally:
            self.folder.__exit__()

    # -- what it does ----------------------------------------------------------------------------------------------

    async def unready(self) -> dict[str, str]:
        """Processes that are not ready, each with its reason."""
        reasons = await asyncio.gather(*(probe.ready(self.port(name, "http")) for name in self.names))
        return {name: reason for name, reason in zip(self.names, reasons, strict=True) if reason}

    async def _unready(self) -> str:
        said = [f"{name} {why} (see {self.folder.log(name)})" for name, why in (await self.unready()).items()]
        return "; ".join(said) or "a partition was not born"

    async def wait_ready(self, timeout: float = START_SECONDS) -> None:
        """Until every process is ready: each partition has a leader that serves, each follower follows.

        Raises TimeoutError, or ClusterStartError as soon as a process refused to start.
        """
        async with asyncio.timeout(timeout):
            while unready := await self.unready():
                for name in unready:
                    if self._children[name].gave_up:
                        raise ClusterStartError(f"{name} does not start: {self._children[name].gave_up}")
                await asyncio.sleep(POLL_SECONDS)

    async def state(self, partition: int) -> PartitionState:
        """A partition's state as coordination has it."""
        versioned = await self.coordination.read_partition(partition)
        if versioned is None:
            raise KVClusterError(f"partition {partition} has no state")
        return versioned.value

    async def leader(self, partition: int) -> str:
        """The pod that leads a partition by coordination's word, which may have died since."""
        leader = (await self.state(partition)).leader
        if leader is None:
            raise KVClusterError(f"partition {partition} has had no leader yet")
        return leader.replica.pod

    async def status(self, name: str) -> Mapping[str, Any] | None:
        """What a process says of itself (a node: NodeStatus); None when it does not answer."""
        return await probe.status(self.port(name, "http"))

    async def wait_leader(self, partition: int, above_epoch: int, timeout: float = 30.0) -> tuple[str, int]:
        """Pod and epoch of the first leader above an epoch. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            async for versioned in self.coordination.watch_partition(partition):
                if versioned and versioned.value.epoch > above_epoch and versioned.value.leader:
                    return versioned.value.leader.replica.pod, versioned.value.epoch
        raise KVClusterError("coordination was closed")

    async def wait_in_sync(self, partition: int, timeout: float = 60.0) -> float:
        """Seconds until every replica of a partition is in sync, each pod with one incarnation. Raises TimeoutError."""
        began = time.monotonic()
        async with asyncio.timeout(timeout):
            async for versioned in self.coordination.watch_partition(partition):
                if versioned and {r.pod for r in versioned.value.in_sync} >= set(versioned.value.replicas):
                    return time.monotonic() - began
        raise KVClusterError("coordination was closed")

    async def kill(self, name: str, *, hold: bool = True) -> None:
        """SIGKILL; with `hold` it stays down until `restart`. Returns when the process is gone."""
        await self.send(name, signal.SIGKILL, hold=hold)

    async def terminate(self, name: str, *, hold: bool = True) -> None:
        """SIGTERM; with `hold` it stays down until `restart`. Returns when the process is gone."""
        await self.send(name, signal.SIGTERM, hold=hold)

    async def send(self, name: str, number: signal.Signals, *, hold: bool) -> None:
        """Send a deadly signal and wait for the death."""
        child = self._children[name]
        child.signal(number, hold=hold)
        await child.wait_down()

    def freeze(self, name: str) -> None:
        """SIGSTOP: it lives and does nothing."""
        self._children[name].signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """SIGCONT."""
        self._children[name].signal(signal.SIGCONT)

    def restart(self, name: str) -> None:
        """Start a process that is held down."""
        self._children[name].start()
