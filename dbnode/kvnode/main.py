"""The `kvnode` command: one replica of one partition as a process."""

import asyncio
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from kvcommon.clock import Clock, SystemClock
from kvcommon.errors import ConfigurationError, KVClusterError
from kvcommon.http import HttpServer
from kvcommon.logging import configure_logging
from kvcommon.server import run
from kvcommon.settings import exit_configuration, load_settings
from kvcoord.contract import Coordination, MemberInfo, ReplicaId, RunId
from kvcoord.open import open_coordination
from kvcoord.view import ClusterWatch
from kvnode.core.events import LeaveRequested
from kvnode.core.types import Config, Role
from kvnode.damage import Damaged, put_aside, remedy
from kvnode.doors.front import Doors
from kvnode.registration import DAMAGED, DISK_FULL, SLOW_DISK, keep_registered, trouble_of
from kvnode.service import Service
from kvnode.settings import NodeSettings
from kvnode.shell.disk import Disk
from kvnode.shell.host import TICK, Host
from kvnode.shell.transport import TcpNetwork
from kvnode.shell.upkeep import Upkeep
from kvnode.space import FREE_CHECK, watch_space
from kvnode.status import Reporter, SyncTimes
from kvstore.errors import CorruptionError, StoreFailedError
from kvstore.store import Store

log = structlog.get_logger()

LEAST_FREE = 64 << 10  # bytes; a rebuild's first file is far smaller


@dataclass(slots=True)
class Node:
    """The parts of a running node, as long as one incarnation of its disk lives."""

    settings: NodeSettings
    store: Store
    coordination: Coordination
    executor: ThreadPoolExecutor
    clock: Clock
    trouble: str = ""  # why the disk was emptied before this run, or is to be after it
    reopen: bool = False  # after this run: the disk is to be opened again, not emptied

    async def run(self, stop: asyncio.Event, run_id: str) -> str | None:
        """Serve until asked to stop (None), or until the disk must be rebuilt (the reason)."""
        settings = self.settings
        me = RunId(ReplicaId(settings.pod, self.store.incarnation), run_id)
        log.info("starting", replica=str(me), end=self.store.end.index, keys=self.store.keys)
        registry = CollectorRegistry()
        network = TcpNetwork(settings.host, settings.replication_port)
        host = Host(
            Config(settings.cluster_id, settings.partition, me, settings.timing),
            self.store,
            coordination=self.coordination,
            network=network,
            clock=self.clock,
            disk=partial(Disk, took=SyncTimes(registry, me, settings.partition).observe),
        )
        watch = ClusterWatch(self.coordination, lambda view: host.keep(view.identity, view.slot_map))
        service = Service(host, slot_map=lambda: watch.view.slot_map or host.kept.slot_map)
        reporter = Reporter(host, registry)
        http = HttpServer(
            ready=reporter.not_ready,
            status=reporter.status_json,
            registry=registry,
            host=settings.host,
            port=settings.http_port,
        )
        doors = Doors(settings, host, service, watch, clock=self.clock, status=reporter.status, registry=registry)
        background: list[asyncio.Task[None]] = []
        try:
            await http.start()
            watch.start()
            await host.start()
            at, addresses = settings.advertise_host, await doors.open()
            member = MemberInfo(
                pod=settings.pod,
                partition=settings.partition,
                replica=me.replica,
                run=run_id,
                grpc_address=addresses.grpc,
                replication_address=f"{at}:{network.port}",
                http_address=f"{at}:{http.port}",
                pipeline_address=addresses.pipeline,
                redis_address=addresses.redis,
                dns_name=settings.dns_name,
                boot_id=_boot_id(),
            )
            told = keep_registered(
                self.coordination,
                lambda: replace(member, trouble=self._trouble(host, service), empty=host.store.end.index == 0),
            )
            background.append(asyncio.create_task(told, name="register"))
            space = watch_space(host, service, least=settings.min_free_mib << 20, reopen=self._reopens)
            background.append(asyncio.create_task(space, name="free disk"))
            background.append(asyncio.create_task(self._upkeep(host).run(), name="upkeep"))
            await doors.set_serving(serving=True)
            log.info("serving", grpc=member.grpc_address, replication=member.replication_address)
            reason = await self._until_over(host, stop)
            if reason is None:
                await doors.set_serving(serving=False)
                await self._leave(host, service)
            else:
                self.trouble = host.core.failure or reason
                if not self.reopen and not await self._room(stop):
                    return None
            return reason
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await doors.close()
            await watch.close()
            await host.close()
            await http.close()

    async def _room(self, stop: asyncio.Event) -> bool:
        """Wait until the disk takes what a rebuild writes before it empties anything; False: asked to stop before."""
        while self.store.free_bytes < LEAST_FREE and not stop.is_set():  # noqa: ASYNC110 - the disk has no events
            await asyncio.sleep(FREE_CHECK)
        return not stop.is_set()

    def _reopens(self) -> None:
        self.reopen = True

    def _upkeep(self, host: Host) -> Upkeep:
        return Upkeep(
            self.store,
            self.clock,
            passed=lambda: host.core.passed,
            damaged=host.damaged,
            verify_every=self.settings.verify_every,
        )

    @staticmethod
    async def _until_over(host: Host, stop: asyncio.Event) -> str | None:
        stopped = asyncio.ensure_future(stop.wait())
        waiting: list[asyncio.Future[Any]] = [stopped, host.rebuild]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            return host.rebuild.result() if host.rebuild.done() else None
        finally:
            stopped.cancel()

    async def _leave(self, host: Host, service: Service) -> None:
        """Hand over and leave the in-sync set, as far as time allows."""
        service.closing = True
        host.step(LeaveRequested())
        deadline = self.clock.now() + self.settings.shutdown_timeout
        while not host.core.may_exit and self.clock.now() < deadline:  # noqa: ASYNC110 - the core has no events
            await asyncio.sleep(TICK / 5)
        log.info("left" if host.core.may_exit else "left without hand-over", in_sync=host.core.in_sync)

    def _trouble(self, host: Host, service: Service) -> str:
        """What is wrong with this replica, for the operator."""
        core, settings = host.core, self.settings
        if core.role is Role.FAILED:
            return trouble_of(DAMAGED, f"{core.failure}; {remedy(core.state, settings.pod)}")
        if core.strange:
            return trouble_of(DAMAGED, f"{core.strange}; {remedy(core.state, settings.pod)}")
        if core.in_sync:
            self.trouble = ""
        if self.trouble:
            return trouble_of(DAMAGED, f"it was rebuilt from empty and catches up, after: {self.trouble}")
        if service.disk_full:
            return trouble_of(DISK_FULL, "its disk is nearly full: writes are refused")
        if host.sync_waiting > settings.follower_timeout:
            return trouble_of(SLOW_DISK, f"its disk has not finished a sync for {settings.follower_timeout:g} s")
        slow = (f"a write of {replica.pod} takes {seconds:.2f} s" for replica, seconds in core.slow.items())
        return trouble_of(SLOW_DISK, "; ".join(slow)) if core.slow else ""


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


async def lives(node: Node, opening: Callable[[], Store], stop: asyncio.Event) -> None:
    """Run a node, life after life on its disk, until asked to stop; the store is closed then."""
    loop, executor, store = asyncio.get_running_loop(), node.executor, node.store
    try:
        while (reason := await node.run(stop, _new_run(node.settings))) is not None:
            if node.reopen:
                log.warning("opening the disk again", reason=reason)
                await loop.run_in_executor(executor, store.close)
                store = await loop.run_in_executor(executor, opening)
            else:
                log.warning("rebuilding from empty", reason=reason)
                await loop.run_in_executor(executor, store.wipe_for_rebuild)
            node = replace(node, store=store, reopen=False)
    finally:
        await loop.run_in_executor(executor, store.close)


async def _serve(settings: NodeSettings, stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    opening = partial(
        Store.open,
        settings.data_dir,
        cluster_id=settings.cluster_id,
        partition=settings.partition,
        pod=settings.pod,
        boot_id=_boot_id(),
        options=settings.store_options,
    )
    coordination = open_coordination(settings.coordination)
    with ThreadPoolExecutor(1, thread_name_prefix="log") as executor:
        trouble = ""
        try:
            store = await loop.run_in_executor(executor, opening)
        except OSError as e:
            msg = f"can't use the folder {settings.data_dir}: {e.strerror or e}; set another --data-dir, or mend it"
            raise ConfigurationError(msg) from e
        except (CorruptionError, StoreFailedError) as e:
            await coordination.start()
            emptied = await _rebuilt(settings, coordination, e, opening, stop)
            if emptied is None:
                await coordination.close()
                return
            store, trouble = emptied, str(e)
        else:
            await coordination.start()
        first = Node(settings, store, coordination, executor, SystemClock(), trouble)
        try:
            await lives(first, opening, stop)
        finally:
            await coordination.close()


async def _rebuilt(
    settings: NodeSettings,
    coordination: Coordination,
    error: KVClusterError,
    opening: Callable[..., Store],
    stop: asyncio.Event,
) -> Store | None:
    """The damaged disk's store, emptied, once the partition does not count on it any more; None: asked to stop before."""
    run_id = _new_run(settings)
    damaged = Damaged(settings, coordination, error, run_id)
    if not await damaged.until_excluded(stop):
        return None
    loop = asyncio.get_running_loop()
    if damaged.incarnation is None:
        aside = await loop.run_in_executor(None, put_aside, Path(settings.data_dir))
        log.warning(
            "files of a disk that does not know whose it is were put aside; delete them at will", folder=str(aside)
        )
    return await loop.run_in_executor(None, partial(opening, rebuild=True))


def _new_run(settings: NodeSettings) -> str:
    run_id = uuid.uuid4().hex[:12]
    _write_termination_log(settings, run_id)
    return run_id


def _write_termination_log(settings: NodeSettings, run_id: str) -> None:
    """Tell the kubelet which run this container is, so that its word of death can name it (rule 7)."""
    path = Path(settings.termination_log)
    if path.is_file():
        try:
            path.write_text(run_id)
        except OSError as e:
            log.warning("termination log not written; failover waits for the lease", error=str(e))


def main() -> None:
    """Run a node until SIGTERM; exit code 2 for what a person must set right."""
    settings = load_settings(NodeSettings)
    configure_logging("kvnode", pod=settings.pod, partition=settings.partition)
    try:
        run(partial(_serve, settings))
    except ConfigurationError as e:
        exit_configuration(e)
    except KVClusterError as e:
        log.error("node ended", error=str(e))  # noqa: TRY400 - a sentence for a person, not a trace
        sys.exit(1)


if __name__ == "__main__":
    main()
