"""Drives one replica's core: every event goes in here, every effect is carried out here, in order."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from kvcommon.clock import Clock
from kvcommon.slotmap import SlotMap
from kvcommon.versions import VersionClock
from kvcoord.contract import (
    ClusterIdentity,
    Coordination,
    CoordinationUnavailableError,
    Death,
    Lost,
    MemberInfo,
    PartitionState,
    RunId,
    Versioned,
    Won,
)
from kvcoord.recovery import Witness
from kvnode.core import effects as ef
from kvnode.core import events as ev
from kvnode.core.doubt import Loss
from kvnode.core.replica import Replica
from kvnode.core.types import Batch, Config, EpochStart, LogView, Meta, Position, Role
from kvnode.shell.asking import ask_all
from kvnode.shell.disk import Disk
from kvnode.shell.metafile import meta_from_json, meta_to_json
from kvnode.shell.recovery import Recovery
from kvnode.shell.testimony import Answer, Kept, Question, kept_from_json, kept_to_json
from kvnode.shell.transport import Connection, Network
from kvnode.shell.wire import Spoken
from kvstore.batch import RecordType, encode_batch, iter_batches
from kvstore.errors import BatchBoundaryError, StoreError, StoreFailedError
from kvstore.store import Store

log = structlog.get_logger()

TICK = 0.05
READ_LOG_BYTES = 1 << 20
HELLO_TIMEOUT = 5.0  # seconds; who dials and says nothing is no replica
_ASIDE = (Question, Answer)  # what is said that the core knows nothing of


class Watcher(Protocol):
    """Who waits for commits: the request service."""

    def committed(self, index: int, *, enough: bool) -> None:
        """Everything up to `index` is committed and applied."""
        ...

    def written(self) -> None:
        """The log's thread is done with what it had, and may have more."""
        ...

    def role_changed(self, role: Role, epoch: int) -> None:
        """Whatever was proposed in an earlier epoch and is not committed has an unknown outcome now."""
        ...


def log_view(store: Store) -> LogView:
    """What the core needs to know of a store just opened."""
    epochs = tuple(EpochStart(e, f) for e, f in store.epochs)
    return LogView(
        Position(store.end.epoch, store.end.index),
        store.applied,
        epochs,
        torn=store.torn_bytes > 0,
        horizon=store.horizon,
    )


class Host:
    """One replica of one partition, alive: the core, its store, its connections, its coordination."""

    def __init__(
        self,
        config: Config,
        store: Store,
        *,
        coordination: Coordination,
        network: Network,
        clock: Clock,
        disk: Callable[..., Disk],
    ) -> None:
        self.config, self.store, self.clock = config, store, clock
        self.versions = VersionClock(config.partition, store.highest_version)
        self.core = Replica(config, meta_from_json(store.state), log_view(store), clock.now())
        self.members: dict[str, MemberInfo] = {}
        self.watcher: Watcher | None = None
        self.rebuild: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._coordination, self._network = coordination, network
        self.cut_version = 0  # the highest version in the log when it was last cut: the cut part may have held it
        self.kept = kept_from_json(store.state.get("kept"))
        self.recovery = Recovery(config.partition, self, coordination)
        self._disk = disk(store, written=self._written, failed=self._write_failed)
        self._connections: dict[int, Connection] = {}
        self._numbers = 0
        self._queue: deque[ev.Event] = deque()
        self._stepping = False
        self._over = False  # closed, or dead of a defect: nothing is taken any more
        self._tasks: set[asyncio.Task[None]] = set()
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            ef.Write: lambda e: self._disk.write(e.batch, trusted=e.batch.epoch == self._led_epoch),
            ef.Send: self._send,
            ef.Committed: self._committed,
            ef.ReadLog: self._read_log,
            ef.Persist: lambda e: self._save(e.meta, self.kept),
            ef.Cut: self._cut,
            ef.Inherit: lambda e: self.store.inherit(e.horizon, e.purged_to),
            ef.Dial: lambda e: self._spawn(self._dial(e.to), f"dial {e.to}"),
            ef.Close: self._close_connection,
            ef.CompareAndSet: lambda e: self._spawn(self._compare_and_set(e), "compare and set"),
            ef.ReadState: lambda e: self._spawn(self._read_state(e.number), "read state"),
            ef.OpenEpoch: self._open_epoch,
            ef.RoleChanged: self._role_changed,
            ef.Rebuild: self._rebuild,
        }
        self._led_epoch = 0

    # --- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen for replicas, watch coordination, tick."""
        await self._network.listen(lambda: self._connection(dialed=False))
        self._spawn(self._tick(), "tick")
        self._spawn(self._watch_state(), "watch state")
        self._spawn(self._watch_members(), "watch members")
        self._spawn(self._watch_deaths(), "watch deaths")
        self._spawn(self.recovery.run(asyncio.sleep), "recovery")

    async def close(self) -> None:
        """Stop at once; what the log took is flushed first."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._over = True
        await self._network.close()
        for connection in list(self._connections.values()):
            connection.abort()
        await self._disk.close()

    def step(self, event: ev.Event) -> None:
        """Take an event; effects that cause events have them taken before this returns, in order."""
        if self._over:
            return
        self._queue.append(event)
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._queue:
                self._carry_out(self.core.step(self._queue.popleft(), self.clock.now()))
                if self._disk.appended and not self._queue:
                    self._disk.begin()  # what goes out with it is on its way
        except Exception as e:
            self.die(e)
            raise
        finally:
            self._stepping = False

    def _carry_out(self, effects: list[ef.Effect]) -> None:
        """In order. What follows from a file that could not be written is not done: the disk has failed."""
        try:
            for effect in effects:
                self._handlers[type(effect)](effect)
        except StoreFailedError as e:
            self._queue.appendleft(ev.WriteFailed(f"{type(e).__name__}: {e}"))

    def die(self, error: BaseException) -> None:
        """Something went wrong that nothing here expects: the process is to end rather than to limp on."""
        self._over = True
        self._queue.clear()
        log.error("replica stopped by a defect", error=f"{type(error).__name__}: {error}")
        if not self.rebuild.done():
            self.rebuild.set_exception(error)

    def damaged(self, error: Exception) -> None:
        """The log can't be read where it must be: the replica leaves and is rebuilt, as after a failed write."""
        reason = f"{type(error).__name__}: {error}"
        asyncio.get_running_loop().call_soon(self.step, ev.WriteFailed(reason))

    def propose(self, data: bytes, first: int, last: int) -> None:
        """Put a batch of the epoch that this replica leads into the log; the caller encoded it for `next_index`."""
        self.step(ev.Proposed(Batch(self.core.epoch, first, last, data)))

    # --- effects -----------------------------------------------------------------------------------------------------

    def _send(self, effect: ef.Send) -> None:
        connection = self._connections.get(effect.conn)
        if connection is not None:
            connection.send(effect.message)

    def _close_connection(self, effect: ef.Close) -> None:
        connection = self._connections.get(effect.conn)
        if connection is not None:
            connection.close()

    def _cut(self, effect: ef.Cut) -> None:
        log.warning("log cut", after=effect.after.index, epoch=effect.after.epoch)
        self.cut_version = self.store.highest_version
        self._disk.finish()
        self.store.cut(effect.after.index)

    def _committed(self, effect: ef.Committed) -> None:
        if self._disk.appended:
            self._disk.begin()  # what came with it is on its way to the disk while this is applied
        self.store.commit(effect.index)
        if self.watcher is not None:
            self.watcher.committed(effect.index, enough=effect.enough)

    def _read_log(self, effect: ef.ReadLog) -> None:
        purges = self.store.purges
        try:
            data = self.store.read(effect.after, READ_LOG_BYTES)
        except BatchBoundaryError as e:  # a follower claims a log that ends where none can
            log.warning("replication connection ended: impossible position", error=str(e))
            self._close_connection(ef.Close(effect.conn))
            return
        except (StoreError, OSError) as e:
            self.damaged(e)
            return
        batches = tuple(Batch(h.epoch, h.first, h.last, d) for h, d in iter_batches(data, verify=False))
        horizon, purged_to = self.store.horizon, self.store.purged_to  # compaction raises them before it shows
        purges = purges if purges == self.store.purges else -1
        self._queue.append(ev.LogRead(effect.conn, effect.after, batches, horizon, purged_to, purges))

    def _open_epoch(self, effect: ef.OpenEpoch) -> None:
        self._led_epoch = effect.epoch
        self.versions.observe(self.store.highest_version)
        version = self.versions.next(self.clock.wall_ms())
        first = self.core.end.index + 1
        records = [(int(RecordType.EPOCH), b"", b"", version, first)]
        data = encode_batch(effect.epoch, first, self.core.commit, records)
        self._queue.appendleft(ev.Proposed(Batch(effect.epoch, first, first, data), internal=True))

    def _role_changed(self, effect: ef.RoleChanged) -> None:
        log.info(
            "role changed", to=effect.role.value, epoch=effect.epoch, end=self.core.end.index, commit=self.core.commit
        )
        if effect.role is Role.FAILED:
            log.error("replica failed", reason=self.core.failure)
        if self.watcher is not None:
            self.watcher.role_changed(effect.role, effect.epoch)

    def _rebuild(self, effect: ef.Rebuild) -> None:
        self.end(effect.reason)

    def end(self, reason: str) -> None:
        """This run is over, for this reason."""
        if not self.rebuild.done():
            self.rebuild.set_result(reason)

    async def _compare_and_set(self, effect: ef.CompareAndSet) -> None:
        expected, wanted, partition = effect.expected_version, effect.state, self.config.partition
        session = self._coordination.session
        try:
            there = await self._coordination.read_partition(partition)
            # Data that was lost, or turned back, has had these versions with other states (rule 19). So the state there must be
            # the one before the wanted one; and data that is begun anew after this read knows no session of before.
            before = (wanted.generation, wanted.serial - 1)
            outcome: Won | Lost = Lost()
            if there is not None and there.version == expected and there.value.age == before:
                outcome = await self._coordination.compare_and_set_partition(
                    partition, expected, wanted, session=session
                )
        except CoordinationUnavailableError as e:
            log.info("partition state not changed: no answer", error=str(e))
            self.step(ev.CasAnswered(effect.expected_version, None))
            return
        self.step(ev.CasAnswered(effect.expected_version, outcome))

    async def _read_state(self, number: int = 0) -> None:
        try:
            self._state_seen(await self._coordination.read_partition(self.config.partition), number)
        except CoordinationUnavailableError as e:
            log.info("partition state not read", error=str(e))

    def _state_seen(self, versioned: Versioned[PartitionState] | None, number: int = 0) -> None:
        state, version = (None, -1) if versioned is None else (versioned.value, versioned.version)
        self.step(ev.StateSeen(state, version, number))

    # --- what outlives coordination's data ---------------------------------------------------------------------------

    def keep(self, identity: ClusterIdentity | None, slot_map: SlotMap | None) -> None:
        """Keep what belongs to the whole cluster on this disk, too (rule 19). Nothing here makes it older."""
        kept = self.kept
        if slot_map is None or (kept.slot_map is not None and slot_map.version < kept.slot_map.version):
            slot_map = kept.slot_map
        newest = Kept(identity or kept.identity, slot_map)
        if newest == kept or self._over or self.core.role is Role.FAILED:
            return
        try:
            self._save(self.core.meta, newest)
            self.kept = newest
        except StoreError as e:
            self.damaged(e)

    def _save(self, meta: Meta, kept: Kept) -> None:
        self.store.save_state({**meta_to_json(meta), "kept": kept_to_json(kept)})

    @property
    def sync_waiting(self) -> float:
        """Seconds that a flush of the log has been under way; 0 when there is none."""
        return self._disk.waiting

    @property
    def loss(self) -> Loss | None:
        """Whether coordination's data was lost or turned back."""
        return self.core.loss

    def testify(self) -> Answer:
        """What this replica knows, for a rebuild of coordination's data."""
        me, meta, end = self.config.me, self.core.meta, self.core.end
        lost = self.core.loss is not None
        known = (meta.state, meta.tried, meta.accepted_epoch)
        testimony = Witness(me.replica, me.run, lost, *known, (end.epoch, end.index))
        return Answer(self.config.partition, testimony, self.kept)

    async def ask_others(self) -> list[Answer]:
        """What the other nodes of the cluster know."""
        mine = self.config.me.replica.pod
        addresses = [m.replication_address for pod, m in self.members.items() if pod != mine]
        return await ask_all(self._network, addresses, Question(self.config.cluster_id))

    async def look(self) -> None:
        """Read the partition's state."""
        await self._read_state()

    # --- connections -------------------------------------------------------------------------------------------------

    def _connection(self, *, dialed: bool) -> Connection:
        self._numbers += 1
        return Connection(self._numbers, self, dialed=dialed)

    async def _dial(self, to: RunId) -> None:
        member = self.members.get(to.replica.pod)
        made: list[Connection] = []

        def make() -> Connection:
            made.append(self._connection(dialed=True))
            return made[0]

        try:
            if member is None or member.run != to.run:
                self.step(ev.DialFailed(to))
                return
            await self._network.dial(member.replication_address, make)
        except (OSError, TimeoutError) as e:
            log.debug("leader not reached", leader=str(to), error=str(e) or "timed out")
            self.step(ev.DialFailed(to))
            return
        if made[0].closed:  # it ended before this task had its turn: nobody would tell the core
            self.step(ev.DialFailed(to))
            return
        self._connections[made[0].number] = made[0]
        self.step(ev.Dialed(made[0].number, to))

    def accepted(self, connection: Connection) -> None:
        """A replica dialed us."""
        self._connections[connection.number] = connection
        asyncio.get_running_loop().call_later(HELLO_TIMEOUT, connection.abort_if_mute)

    def received(self, connection: Connection, message: Spoken) -> None:
        """A message came."""
        if isinstance(message, _ASIDE):
            if isinstance(message, Question) and message.cluster_id == self.config.cluster_id:
                connection.send(self.testify())
            connection.close()
        elif connection.number in self._connections:
            self.step(ev.Received(connection.number, message))

    def disconnected(self, connection: Connection) -> None:
        """A connection ended."""
        if self._connections.pop(connection.number, None) is not None:
            self.step(ev.Disconnected(connection.number))

    def _written(self, end: Position) -> None:
        self.step(ev.Written(end))
        if self.store.short_of_room:
            self.step(ev.DiskSpace(low=True))
        if self.watcher is not None:
            self.watcher.written()

    @property
    def writing(self) -> bool:
        """Whether the log is being written: what comes now waits for it."""
        return self._disk.busy

    def _write_failed(self, reason: str) -> None:
        self.step(ev.WriteFailed(reason))

    # --- what goes on in the background ------------------------------------------------------------------------------

    def _spawn(self, work: Any, name: str) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._over:
            self.die(error)

    async def _tick(self) -> None:
        tick = ev.Tick()
        while True:
            self.step(tick)
            await asyncio.sleep(TICK)

    async def _watch_state(self) -> None:
        async for versioned in self._coordination.watch_partition(self.config.partition):
            self._state_seen(versioned)

    async def _watch_members(self) -> None:
        async for members in self._coordination.watch_members():
            self.members = {**self.members, **members}

    async def _watch_deaths(self) -> None:
        known: dict[str, Death] = {}
        async for deaths in self._coordination.watch_deaths():
            for pod, death in deaths.items():
                if known.get(pod) != death:
                    known[pod] = death
                    self.step(ev.DeathReported(death))
