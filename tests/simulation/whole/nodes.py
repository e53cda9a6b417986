"""A machine with its disk and clocks, and the node's process on it: kvnode's own parts, put together as `kvnode.main` does.

Beside every store a shadow of its log is kept (`tests.simulation.disk`), for the checks: who wrote what, and what of it is
durable. At each start the store must hold everything that the shadow calls durable, and nothing that was never written.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvcommon.versions import EPOCH_MS
from kvcoord.contract import CoordinationUnavailableError, MemberInfo, ReplicaId, RunId
from kvcoord.view import ClusterWatch
from kvnode.core import effects as ef
from kvnode.core import events as ev
from kvnode.core.messages import Ack, Append, Hello
from kvnode.core.types import Batch, Config, Role
from kvnode.doors.answers import Errors
from kvnode.doors.pipeline import PipelineDoor
from kvnode.operations import Code, Kind, Outcome, ReadMode, Request
from kvnode.service import Service
from kvnode.shell.disk import Disk
from kvnode.shell.host import TICK, Host
from kvnode.shell.transport import TcpNetwork
from kvstore.batch import iter_batches, iter_records
from kvstore.errors import CorruptionError, StoreError, StoreFailedError
from kvstore.meta import read_meta
from kvstore.store import Store, StoreOptions
from tests.simulation import disk as shadows
from tests.simulation.network import frequent
from tests.simulation.timeline import Mark, describe, describe_state
from tests.simulation.whole.world import Actor, Plug
from tests.support.faulty_files import FaultyFiles

if TYPE_CHECKING:
    from tests.simulation.whole.cluster import Partition, WholeCluster

DATA = Path("/data")
PIPELINE, REPLICATION = 7402, 7401
LEAVE_TIMEOUT = 5.0
ALL = 1 << 40


class Clock:
    """A machine's clocks; the rate of the one is wrong by a constant within the assumed bound."""

    def __init__(self, loop: Any, rate: float, offset: float, wall_offset: float) -> None:
        self._loop, self.rate, self.offset, self._wall_offset = loop, rate, offset, wall_offset

    def now(self) -> float:
        return float(self.offset + self._loop.now * self.rate)

    def wall_ms(self) -> int:
        return EPOCH_MS + int((self._loop.now + 1000) * 1000 + self._wall_offset)

    def true(self, local: float) -> float:
        """The true time at which this clock shows `local`."""
        return (local - self.offset) / self.rate


class Machine:
    """What outlives a process."""

    def __init__(self, cluster: "WholeCluster", partition: "Partition", pod: str) -> None:
        self.cluster, self.partition, self.pod = cluster, partition, pod
        self.loop = cluster.loop
        self.rng = rng = self.loop.stream(f"machine {pod}")
        error = 0.0 if "clocks" in cluster.options.calm else cluster.timing.clock_rate_error
        rate = 1 + rng.choice([-error, error, rng.uniform(-error, error)])
        self.clock = Clock(self.loop, rate, rng.uniform(0, 1e6), rng.uniform(-300, 300))
        self.files = FaultyFiles()
        self.sync_base = 0.001 if "disks" in cluster.options.calm else rng.choice([0.0005, 0.003, 0.02])
        self.slow_disk = 0.0  # seconds that a sync may take at most, above the usual
        self.incarnations = 0
        self.runs = 0
        self.process: NodeProcess | None = None
        self.down_for_good = 0  # reasons for which it is not to be started

    def new_incarnation(self) -> str:
        self.incarnations += 1
        return f"{self.pod}-i{self.incarnations}"

    def shadow(self, incarnation: str) -> shadows.Disk:
        """The shadow of this incarnation's log."""
        replica = ReplicaId(self.pod, incarnation)
        known = self.partition.checker.disks.get(replica)
        if known is None:
            known = shadows.Disk(replica, self.partition.payloads)
            self.partition.checker.known_disk(known)
        return known

    def sync_delay(self) -> float:
        return self.rng.uniform(0.2, 2.0) * self.sync_base + self.rng.random() * self.slow_disk

    def start(self) -> None:
        if self.process is None and not self.down_for_good:
            self.runs += 1
            self.process = NodeProcess(self)
            self.process.actor.spawn(self.process.main(), "main")


class VirtualWorker:
    """One worker thread's work, done at once after the time that the disk takes."""

    def __init__(self, process: "NodeProcess") -> None:
        self._process = process

    def begin(self, work: Callable[[], object], done: Callable[[BaseException | None], None]) -> None:
        self._process.actor.later(self._process.machine.sync_delay(), self._run, work, done)

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

    effects: tuple[()] = ()

    def __init__(self, machine: Machine) -> None:
        self.machine, self.cluster, self.loop, self.pod = machine, machine.cluster, machine.loop, machine.pod
        self.partition, self.checker, self.clock = machine.partition, machine.partition.checker, machine.clock
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
        machine.cluster.actors.append(self.actor)

    @property
    def core(self) -> Any:
        return self.host.core

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
        while True:
            reason = await self._serve(store)
            if reason is None:
                break
            self.note(f"is rebuilt from empty: {reason}", Mark.DISK)
            store.wipe_for_rebuild()
            self.serving = False
        store.close()
        await self.session.close()

    async def _open(self) -> Store:
        machine, cluster = self.machine, self.cluster
        opening = partial(
            Store.open,
            DATA,
            cluster_id=cluster.cluster_id,
            partition=self.partition.number,
            pod=self.pod,
            files=machine.files,
            options=StoreOptions(
                segment_bytes=cluster.segment_bytes,
                compaction_bytes_per_second=0,
                compaction_reserve_bytes=0,
                tombstone_ms=0,
                new_incarnation=machine.new_incarnation,
            ),
        )
        try:
            return opening()
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
        self._compare(store)
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
        self._observe(host)
        self.watch = ClusterWatch(self.session, lambda view: host.keep(view.identity, view.slot_map))
        service = Service(host, slot_map=lambda: self.watch.view.slot_map or host.kept.slot_map)
        self._observe_service(service)
        door = PipelineDoor(service, self.clock, Errors(self.watch, self.partition.number))
        self.serving = True
        self.note(f"starts as {self.run.replica}, commit {self.core.commit}", Mark.START)
        self.checker.started(self)  # type: ignore[arg-type]
        self.watch.start()
        await host.start()
        await door.start(self.pod, PIPELINE)
        member = MemberInfo(
            pod=self.pod,
            partition=self.partition.number,
            replica=self.run.replica,
            run=self.who,
            grpc_address=f"{self.pod}:7400",
            replication_address=f"{self.pod}:{REPLICATION}",
            http_address="",
            pipeline_address=f"{self.pod}:{PIPELINE}",
            empty=store.end.index == 0,
        )
        registering = asyncio.create_task(self._register(member), name="register")
        upkeep = asyncio.create_task(self._upkeep(), name="upkeep")
        try:
            return await self._until_over(service)
        finally:
            registering.cancel()
            upkeep.cancel()
            door.close()
            await self.watch.close()
            await host.close()

    async def _register(self, member: MemberInfo) -> None:
        try:
            await self.session.register_member(member)
        except CoordinationUnavailableError as e:
            self.note(f"is not registered yet: {e}")

    async def _upkeep(self) -> None:
        """As `kvnode.shell.upkeep` has it, whose thread is the one thing that is not here."""
        store = self.host.store
        while True:
            await asyncio.sleep(self.machine.rng.uniform(0.2, 1.0))
            try:
                store.allow_purge(self.core.passed)
                before, purged = store.horizon, store.purged_to
                if store.maintain() and store.horizon != before:
                    self.note(f"has compacted its log below {store.horizon}", Mark.DISK, detail=True)
                    self.checker.count("compactions")
                    if store.purged_to != purged:
                        self.checker.count("purges of deletes")
            except StoreError as e:
                self.host.damaged(e)
                return
            except OSError as e:
                self.note(f"can't compact its log now: {e}", Mark.DISK)

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

    # --- what the checks are told ------------------------------------------------------------------------------------

    def _compare(self, store: Store) -> None:
        """The log found is what was written: all that was durable, and no other bytes."""
        shadow, end = self.disk, store.end.index
        kept = [batch for batch in shadow.log if batch.last <= end]
        if shadow.durable.index > end and not shadow.destroyed:
            self.checker.fail(self, 22, f"finds a log to {end} at its start, {shadow.durable} was durable")  # type: ignore[arg-type]
        if not shadow.destroyed:
            self._compare_records(store, kept)
        shadow.restore(len(kept))

    def _compare_records(self, store: Store, kept: Sequence[Batch]) -> None:
        """Above the horizon every record that was written is there; below it, none that was not."""
        written = {r.index: r for batch in kept for r in self.disk.payloads.of(batch).records}
        found = {r.index: r for _, data in iter_batches(store.read(0, ALL)) for r in iter_records(data)}
        missing = [i for i in written if i > store.horizon and i not in found]
        other = [i for i, r in found.items() if written.get(i) != r]
        if missing or other:
            what = f"misses {missing[:5]} of its log to {store.end.index} at its start, and has others at {other[:5]}"
            self.checker.fail(self, 3, what)  # type: ignore[arg-type]

    def _observe(self, host: Host) -> None:
        """Put the checks between the core and the shell."""
        step = host.core.step

        def watched(event: ev.Event, now: float) -> list[ef.Effect]:
            if isinstance(event, ev.Proposed):
                self.checker.proposes(self, event.batch)  # type: ignore[arg-type]
            elif isinstance(event, ev.Received):
                self._note_received(event)
            led = self._leads()
            effects = step(event, now)
            self.led = self._leads() or led
            self.checker.stepped(self, event)  # type: ignore[arg-type]
            return effects

        host.core.step = watched  # type: ignore[method-assign]
        before: dict[type[Any], Callable[[Any], None]] = {
            ef.Write: lambda e: self._appends(e.batch),
            ef.Committed: self._commits,
            ef.Cut: self._cuts,
            ef.Send: self._sends,
            ef.Persist: self._persists,
            ef.CompareAndSet: self._asks,
            ef.RoleChanged: lambda e: self.note(f"is {e.role.value} in epoch {e.epoch}", Mark.ROLE),
            ef.Rebuild: lambda _: self.checker.rebuilds(self),  # type: ignore[arg-type]
        }
        for kind, check in before.items():
            host._handlers[kind] = _both(check, host._handlers[kind])

    def _leads(self) -> int:
        return self.core.leading.epoch if self.core.leading is not None else 0

    def _appends(self, batch: Batch) -> None:
        if not self.disk_failed:
            self.checker.appends(self, batch)  # type: ignore[arg-type]
            self.disk.append(batch)
            for record in self.disk.payloads.of(batch).records:
                self.partition.places[record.version] = record.index

    def _commits(self, effect: ef.Committed) -> None:
        self.note(f"commits to {effect.index}{'' if effect.enough else ' with too few copies'}", Mark.COMMIT)
        self.checker.commits(self, effect.index)  # type: ignore[arg-type]

    def _cuts(self, effect: ef.Cut) -> None:
        after = effect.after
        self.note(f"cuts its log after {after.epoch}:{after.index}, it ended at {self.disk.end.index}", Mark.DISK)
        self.checker.cuts(self, after)  # type: ignore[arg-type]
        self.disk.cut(after.index)

    def _persists(self, effect: ef.Persist) -> None:
        self.checker.persists(self, effect.meta)  # type: ignore[arg-type]
        self.disk.meta = effect.meta

    def _asks(self, effect: ef.CompareAndSet) -> None:
        self.note(f"asks coordination for {describe_state(effect.state)}", Mark.COORDINATION)
        self.checker.asks(self, effect.state)  # type: ignore[arg-type]

    def _sends(self, effect: ef.Send) -> None:
        self.checker.sends(self, effect.conn, effect.message)  # type: ignore[arg-type]
        connection = self.host._connections.get(effect.conn)
        plug = connection._transport if connection is not None else None
        if self.loop.verbose and isinstance(plug, Plug):
            plug.link = self.loop.timeline.link()
            what = f"sends {plug.peer.actor.who} {describe(effect.message)}"
            self.note(what, Mark.SEND, link=plug.link, detail=frequent(effect.message))

    def _note_received(self, event: ev.Received) -> None:
        message = event.message
        if isinstance(message, Append):
            self.heard = (message.sequence, self.clock.now())
        elif isinstance(message, Hello):
            self.meant[event.conn] = message.to
        connection = self.host._connections.get(event.conn)
        plug = connection._transport if connection is not None else None
        if self.loop.verbose and isinstance(plug, Plug):
            what = f"gets from {plug.peer.actor.who} {describe(message)}"
            detail = isinstance(message, Ack) or frequent(message)
            self.note(what, Mark.RECEIVE, link=plug.link, detail=detail)

    def _observe_service(self, service: Service) -> None:
        """All that is shown must be committed (invariants 16, 21)."""
        submit = service.submit

        def watched(request: Request, answer: Callable[[Sequence[Outcome] | None], None]) -> None:
            self.led = self._leads() or self.led

            def checked(outcomes: Sequence[Outcome] | None) -> None:
                if outcomes is not None and request.read_mode == ReadMode.LINEARIZABLE:
                    for op, outcome in zip(request.operations, outcomes, strict=True):
                        self._check_answer(op[0], outcome)
                answer(outcomes)

            submit(request, checked)

        service.submit = watched  # type: ignore[method-assign]

    def _check_answer(self, kind: int, outcome: Outcome) -> None:
        if outcome.code not in (Code.OK, Code.ALREADY_EXISTS, Code.VERSION_MISMATCH) or not outcome.version:
            return
        index = self.partition.places.get(outcome.version, self.checker.top + 1)
        if outcome.code == Code.OK and kind != Kind.GET:
            self.checker.acknowledged(self, index)  # type: ignore[arg-type]
        else:
            self.checker.answered(self, index)  # type: ignore[arg-type]

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
            self.checker.ended(self)  # type: ignore[arg-type]

    def pause(self) -> None:
        self.actor.paused = True
        self.session.away = True

    def resume(self) -> None:
        if self.alive:
            self.note("goes on after its pause", Mark.HEAL)
            self.session.away = False
            self.actor.resume()


def _both(first: Callable[[Any], None], second: Callable[[Any], None]) -> Callable[[Any], None]:
    def run(effect: Any) -> None:
        first(effect)
        second(effect)

    return run
