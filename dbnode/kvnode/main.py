"""The `kvnode` command: one replica of one partition as a process."""

import asyncio
import secrets
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
from kvcoord.contract import Coordination, CoordinationUnavailableError, MemberInfo, ReplicaId, RunId
from kvcoord.open import open_coordination
from kvcoord.view import ClusterWatch
from kvnode.core.events import LeaveRequested
from kvnode.core.types import Config
from kvnode.doors.answers import Errors
from kvnode.doors.grpc import ClusterDoor, GrpcServer, KeyValueDoor
from kvnode.doors.pipeline import PipelineDoor
from kvnode.doors.redis import RedisDoor, RedisSettings
from kvnode.service import MIN_FREE_BYTES, Service
from kvnode.settings import NodeSettings
from kvnode.shell.disk import Disk
from kvnode.shell.host import TICK, Host
from kvnode.shell.transport import TcpNetwork
from kvnode.status import Reporter
from kvresp.counts import RedisCollector
from kvstore.errors import CorruptionError, StoreFailedError
from kvstore.files import OsFiles
from kvstore.meta import read_meta
from kvstore.store import Store, StoreOptions

log = structlog.get_logger()

FREE_CHECK = 1.0


@dataclass(slots=True)
class Node:
    """The parts of a running node, as long as one incarnation of its disk lives."""

    settings: NodeSettings
    store: Store
    coordination: Coordination
    executor: ThreadPoolExecutor
    clock: Clock

    async def run(self, stop: asyncio.Event, run_id: str) -> str | None:
        """Serve until asked to stop (None), or until the disk must be rebuilt (the reason)."""
        settings = self.settings
        me = RunId(ReplicaId(settings.pod, self.store.incarnation), run_id)
        log.info("starting", replica=str(me), end=self.store.end.index, keys=self.store.keys)
        empty = self.store.end.index == 0
        network = TcpNetwork(settings.host, settings.replication_port)
        host = Host(
            Config(settings.cluster_id, settings.partition, me, settings.timing),
            self.store,
            coordination=self.coordination,
            network=network,
            clock=self.clock,
            disk=partial(Disk, executor=self.executor),
        )
        watch = ClusterWatch(self.coordination, lambda view: host.keep(view.identity, view.slot_map))
        service = Service(host, slot_map=lambda: watch.view.slot_map or host.kept.slot_map)
        registry = CollectorRegistry()
        reporter = Reporter(host, registry)
        http = HttpServer(
            ready=reporter.not_ready,
            status=reporter.status_json,
            registry=registry,
            host=settings.host,
            port=settings.http_port,
        )
        errors = Errors(watch, settings.partition)
        grpc = GrpcServer(KeyValueDoor(service, self.clock, errors), ClusterDoor(watch, reporter.status))
        pipeline = PipelineDoor(service, self.clock, errors)
        redis = RedisDoor(
            host,
            service,
            view=lambda: watch.view,
            clock=self.clock,
            number=secrets.randbelow,
            settings=RedisSettings(
                settings.cluster_id, settings.pod, settings.durability == "fsync", settings.redis_max_clients
            ),
        )
        registry.register(RedisCollector(redis))
        background: list[asyncio.Task[None]] = []
        try:
            await http.start()
            watch.start()
            await host.start()
            port = await grpc.start(settings.host, settings.grpc_port)
            pipeline_port = await pipeline.start(settings.host, settings.pipeline_port)
            at = settings.advertise_host
            redis_address = ""
            if settings.redis_port:
                redis_port = await redis.start(settings.host, settings.redis_port)
                redis_address = f"{settings.redis_announce_host or at}:{redis_port}"
            member = MemberInfo(
                pod=settings.pod,
                partition=settings.partition,
                replica=me.replica,
                run=run_id,
                grpc_address=f"{at}:{port}",
                replication_address=f"{at}:{network.port}",
                http_address=f"{at}:{http.port}",
                pipeline_address=f"{at}:{pipeline_port}",
                redis_address=redis_address,
                dns_name=settings.dns_name,
                boot_id=_boot_id(),
                empty=empty,
            )
            background.append(asyncio.create_task(self._register(member), name="register"))
            background.append(asyncio.create_task(self._watch_disk(service), name="free disk"))
            await grpc.set_serving(serving=True)
            log.info("serving", grpc=member.grpc_address, replication=member.replication_address)
            reason = await self._until_over(host, stop)
            if reason is None:
                await grpc.set_serving(serving=False)
                await self._leave(host, service)
            return reason
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await grpc.close(0.2)
            pipeline.close()
            await redis.close()
            await watch.close()
            await host.close()
            await http.close()

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

    async def _register(self, member: MemberInfo) -> None:
        """Say who we are; the coordination goes on trying by itself when the service is away."""
        try:
            await self.coordination.register_member(member)
        except CoordinationUnavailableError as e:
            log.warning("not registered yet, trying on", error=str(e))

    async def _watch_disk(self, service: Service) -> None:
        while True:
            try:
                full = self.store.free_bytes < MIN_FREE_BYTES
            except OSError as e:
                log.warning("free disk space is not known", error=str(e))
                full = service.disk_full
            if full != service.disk_full:
                log.warning("disk nearly full" if full else "disk has space again", free_bytes=self.store.free_bytes)
                service.disk_full = full
            await asyncio.sleep(FREE_CHECK)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


async def _serve(settings: NodeSettings, stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    options = StoreOptions(durability=settings.durability)
    opening = partial(
        Store.open,
        settings.data_dir,
        cluster_id=settings.cluster_id,
        partition=settings.partition,
        pod=settings.pod,
        options=options,
    )
    coordination = open_coordination(settings.coordination)
    with ThreadPoolExecutor(1, thread_name_prefix="log") as executor:
        try:
            store = await loop.run_in_executor(executor, opening)
        except OSError as e:
            msg = f"can't use the folder {settings.data_dir}: {e.strerror or e}; set another --data-dir, or mend it"
            raise ConfigurationError(msg) from e
        except (CorruptionError, StoreFailedError) as e:
            await coordination.start()
            if not await _may_rebuild(settings, coordination, e, stop):
                return
            store = await loop.run_in_executor(executor, partial(opening, rebuild=True))
        else:
            await coordination.start()
        try:
            while True:
                run_id = uuid.uuid4().hex[:12]
                _write_termination_log(settings, run_id)
                reason = await Node(settings, store, coordination, executor, SystemClock()).run(stop, run_id)
                if reason is None:
                    return
                log.warning("rebuilding from empty", reason=reason)
                await loop.run_in_executor(executor, store.wipe_for_rebuild)
        finally:
            await coordination.close()
            await loop.run_in_executor(executor, store.close)


async def _may_rebuild(
    settings: NodeSettings, coordination: Coordination, error: KVClusterError, stop: asyncio.Event
) -> bool:
    """Wait until the partition does not count on this damaged disk any more; False: asked to stop before."""
    log.error("this replica's disk is damaged; it is rebuilt once the others have taken it out", error=str(error))
    damaged = read_meta(OsFiles(), Path(settings.data_dir))
    ours = ReplicaId(settings.pod, damaged.incarnation if damaged else "")
    stopped = asyncio.ensure_future(stop.wait())

    async def excluded() -> None:
        async for versioned in coordination.watch_partition(settings.partition):
            state = versioned.value if versioned else None
            if state is not None and ours not in state.in_sync:
                return
            log.error("the in-sync set still counts on this damaged disk", replica=str(ours))

    waiting = asyncio.ensure_future(excluded())
    try:
        await asyncio.wait([stopped, waiting], return_when=asyncio.FIRST_COMPLETED)
        return waiting.done()
    finally:
        stopped.cancel()
        waiting.cancel()


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
