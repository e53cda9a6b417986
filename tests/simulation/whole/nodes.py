"""The node's process: kvnode's own parts, put together as `kvnode.main` does."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvcoord.contract import CoordinationUnavailableError, MemberInfo, ReplicaId, RunId
from kvcoord.view import ClusterWatch
from kvnode.core import events as ev
from kvnode.core.types import Config, Role
from kvnode.doors.answers import Errors
from kvnode.doors.pipeline import PipelineDoor
from kvnode.doors.redis import RedisDoor, RedisSettings
from kvnode.service import Service
from kvnode.shell.disk import Disk
from kvnode.shell.host import TICK, Host
from kvnode.shell.transport import TcpNetwork
from kvnode.shell.upkeep import Upkeep
from kvnode.space import watch_space
from kvstore.errors import CorruptionError, StoreError, StoreFailedError
from kvstore.files import File
from kvstore.meta import read_meta
from kvstore.store import Store, StoreOptions
from tests.simulation import disk as shadows
from tests.simulation.checks import Checker
from tests.simulation.timeline import Mark
from tests.simulation.whole.disk_faults import UNREADABLE_TO_UPKEEP
from tests.simulation.whole.observer import Observer
from tests.simulation.whole.world import Actor

if TYPE_CHECKING:
    from tests.simulation.whole.cluster import Partition
    from tests.simulation.whole.machines import Machine

DATA = Path("/data")
PIPELINE, REPLICATION, REDIS = 7402, 7401, 6379
LEAVE_TIMEOUT = 5.0
VERIFY_EVERY = 5.0


class VirtualWorker:
    """One worker thread's work, done at once after the time that the disk takes; so are syncs, on half of the machines."""

    def __init__(self, process: "NodeProcess") -> None:
        self._process = process
        self.syncs = process.machine.kernel_syncs
        self._syncing: Callable[[], None] | None = None

    def begin(self, work: Callable[[], object], done: Callable[[BaseException | None], None]) -> None:
        self._process.actor.later(self._process.machine.sync_delay(), self._run, work, done)

    def sync(self, file: File, done: Callable[[BaseException | None], None]) -> None:
        self._syncing = partial(self._sync, file, len(self._process.disk.log), done)
        self._process.actor.later(self._process.machine.sync_delay(), self._end, self._syncing)

    def finish(self) -> None:
        if self._syncing is not None:
            self._end(self._syncing)

    def _end(self, syncing: Callable[[], None]) -> None:
        if self._syncing is syncing:
            self._syncing = None
            syncing()

    def _sync(self, file: File, written: int, done: Callable[[BaseException | None], None]) -> None:
        shadow = self._process.disk
        try:
            file.sync()
        except Exception as e:
            done(e)
            return
        shadow.end_flush(min(written, len(shadow.log)))  # it may just be cut
        done(None)

    def close(self) -> None:
        return

    def _run(self, work: Callable[[], object], done: Callable[[BaseException | None], None]) -> None:
        shadow = self._process.disk
        written = len(shadow.log)
        try:
            work()
        except Exception as e:
            done(e)
            return
        if self._process.host.store.durable.index == shadow.end.index:
            shadow.end_flush(written)
        done(None)


class NodeProcess:
    """One run. What the checks look at is named as in the core's simulation (`tests.simulation.node`)."""

    waits = False  # effects are carried out at once

    def __init__(self, machine: "Machine") -> None:
        self.machine, self.cluster, self.loop, self.pod = machine, machine.cluster, machine.loop, machine.pod
        self.partition: Partition = machine.partition
        self.clock = machine.clock
        self.checker: Checker = machine.partition.checker
        self.who = f"{machine.pod}-r{machine.runs}"
        self.actor = Actor(self.loop, self.who, machine.pod)
        self.session = self.cluster.coordination.session(self.who)
        self.alive = True
        self.stop = asyncio.Event()
        self.led = 0  # epoch led before or after the newest step
        self.heard: tuple[int, float] = (0, 0.0)
        self.meant: dict[int, RunId] = {}
        self.run: RunId
        self.host: Host
        self.watch: ClusterWatch
        self.disk: shadows.Disk
        self.serving = False
        self.leaving = False
        self.reopen = False  # after this life: the disk is to be opened again, not emptied
        self.upkeep_fails = False  # the place that upkeep reads next can't be read any more
        self.observer = Observer(self)
        machine.cluster.actors.append(self.actor)

    @property
    def core(self) -> Any:
        return self.host.core

    def leads(self) -> int:
        """The epoch that it leads, or 0."""
        return self.core.leading.epoch if self.core.leading is not None else 0

    @property
    def disk_failed(self) -> bool:
        return self.host.store.failure is not None or self.core.role is Role.FAILED

    def note(self, what: str, mark: Mark = Mark.NOTE, *, link: int = 0, detail: bool = False) -> None:
        """A line of the timeline, with this run's epoch and the end of its log."""
        epoch = index = None
        if self.serving:
            epoch, index = self.core.epoch, self.core.end.index
        self.loop.note(self.who, what, mark, epoch=epoch, index=index, link=link, detail=detail)

    # --- the process -------------------------------------------------------------------------------------------------

    async def main(self) -> None:
        """As `kvnode.main` has it; a disk that can't be used ends the process, and the kubelet starts it again."""
        try:
            await self._run()
        except (StoreError, OSError) as e:
            self.note(f"ends with an error: {type(e).__name__}: {e}", Mark.DISK)
            self.checker.count("ends with an error")
        self.cluster.ended_by_itself(self)

    async def _run(self) -> None:
        """Open the store, serve, rebuild as often as it takes, leave when asked to."""
        await self.session.start()
        store = await self._open()
        self.observer.observe_store(store)
        while True:
            reason = await self._serve(store)
            if reason is None:
                break
            if self.reopen:
                self.note(f"opens its disk again: {reason}", Mark.DISK)
                self.machine.runs += 1
                self.who = f"{self.pod}-r{self.machine.runs}"  # another run of the same process
                store.close()
                store = await self._open()
                self.observer.observe_store(store)
            else:
                self.note(f"is rebuilt from empty: {reason}", Mark.DISK)
                store.wipe_for_rebuild()
            self.serving = self.reopen = False
        store.close()
        await self.session.close()

    async def _open(self) -> Store:
        machine, cluster = self.machine, self.cluster
        machine.files.may_fail = partial(cluster.faults.may_fail, machine)
        opening = partial(
            Store.open,
            DATA,
            cluster_id=cluster.cluster_id,
            partition=self.partition.number,
            pod=self.pod,
            boot_id=f"boot {machine.boots}",
            files=machine.files,
            options=StoreOptions(
                durability=cluster.durability,
                segment_bytes=cluster.segment_bytes,
                **machine.caches,
                ballast_bytes=machine.ballast,
                compaction_bytes_per_second=0,
                compaction_reserve_bytes=0,
                tombstone_ms=0,
                new_incarnation=machine.new_incarnation,
            ),
        )
        try:
            store = opening()
            if not store.incarnation_lost or self.observer.can_read(store):
                return store
            store.close()
        except (CorruptionError, StoreFailedError) as e:
            self.note(f"its disk is damaged, it waits until it is not counted on: {e}", Mark.DISK)
            self.checker.count("damage found at a start")
        await self._excluded()
        return opening(rebuild=True)

    async def _excluded(self) -> None:
        """Until the partition does not count on this damaged disk any more."""
        damaged = read_meta(self.machine.files, DATA)
        ours = ReplicaId(self.pod, damaged.incarnation if damaged else "")
        async for versioned in self.session.watch_partition(self.partition.number):
            if versioned is not None and ours not in versioned.value.in_sync:
                return

    async def _serve(self, store: Store) -> str | None:
        cluster = self.cluster
        self.run = RunId(ReplicaId(self.pod, store.incarnation), self.who)
        self.disk = self.machine.shadow(store.incarnation)
        self.observer.compare(store)
        network = TcpNetwork(self.pod, REPLICATION)
        config = Config(
            cluster.cluster_id, self.partition.number, self.run, cluster.timing, window=cluster.window, retry=0.1
        )
        self.host = host = Host(
            config,
            store,
            coordination=self.session,
            network=network,
            clock=self.clock,
            disk=partial(Disk, worker=VirtualWorker(self)),
        )
        self.observer.observe(host)
        self.watch = ClusterWatch(self.session, lambda view: host.keep(view.identity, view.slot_map))
        service = Service(host, slot_map=lambda: self.watch.view.slot_map or host.kept.slot_map)
        self.observer.observe_service(service)
        door = PipelineDoor(service, self.clock, Errors(self.watch, self.partition.number))
        redis = RedisDoor(
            host,
            service,
            view=lambda: self.watch.view,
            clock=self.clock,
            number=self.machine.rng.randrange,
            settings=RedisSettings(cluster.cluster_id, self.pod, durable=True),
        )
        self.serving = True
        self.note(f"starts as {self.run.replica}, commit {self.core.commit}", Mark.START)
        self.checker.started(self)
        self.watch.start()
        await host.start()
        await door.start(self.pod, PIPELINE)
        await redis.start(self.pod, REDIS)
        member = MemberInfo(
            pod=self.pod,
            partition=self.partition.number,
            replica=self.run.replica,
            run=self.who,
            grpc_address=f"{self.pod}:7400",
            replication_address=f"{self.pod}:{REPLICATION}",
            http_address="",
            pipeline_address=f"{self.pod}:{PIPELINE}",
            redis_address=f"{self.pod}:{REDIS}",
            empty=store.end.index == 0,
        )
        background: list[asyncio.Task[None]] = [
            asyncio.create_task(self._register(member), name="register"),
            asyncio.create_task(self._upkeep().run(), name="upkeep"),
        ]
        if self.machine.least_free:
            space = watch_space(host, service, least=self.machine.least_free, reopen=self._reopens)
            background.append(asyncio.create_task(space, name="free disk"))
        try:
            return await self._until_over(service)
        finally:
            for task in background:
                task.cancel()
            door.close()
            await redis.close()
            await self.watch.close()
            await host.close()

    async def _register(self, member: MemberInfo) -> None:
        try:
            await self.session.register_member(member)
        except CoordinationUnavailableError as e:
            self.note(f"is not registered yet: {e}")

    def _reopens(self) -> None:
        self.reopen = True

    def _upkeep(self) -> Upkeep:
        def damaged(error: Exception) -> None:
            self.checker.count("damage found by upkeep")
            self.host.damaged(error)

        return Upkeep(
            self.host.store,
            self.clock,
            passed=lambda: self.core.passed,
            damaged=damaged,
            verify_every=0.0 if self.cluster.faults.has_rare(UNREADABLE_TO_UPKEEP) else VERIFY_EVERY,
        )

    async def _until_over(self, service: Service) -> str | None:
        stopped = asyncio.ensure_future(self.stop.wait())
        waiting: list[asyncio.Future[Any]] = [stopped, self.host.rebuild]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if self.host.rebuild.done():
            return self.host.rebuild.result()
        service.closing = True
        self.host.step(ev.LeaveRequested())
        deadline = self.clock.now() + LEAVE_TIMEOUT
        while not self.core.may_exit and self.clock.now() < deadline:  # noqa: ASYNC110 - as in kvnode.main
            await asyncio.sleep(TICK / 5)
        return None

    # --- what happens to it ------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """SIGTERM."""
        self.leaving = True
        self.stop.set()

    def end(self, *, silently: bool) -> None:
        """SIGKILL, or with its machine's power."""
        self.note("ends" if not silently else "ends with its machine, and nobody is told", Mark.END)
        self.alive = False
        self.machine.process = None
        self.actor.kill(silently=silently)
        self.session.crash()
        if hasattr(self, "run"):
            self.checker.ended(self)

    def pause(self) -> None:
        self.actor.paused = True
        self.session.away = True

    def resume(self) -> None:
        if self.alive:
            self.note("goes on after its pause", Mark.HEAL)
            self.session.away = False
            self.actor.resume()
