"""A machine with its clocks and its disk, and the process on it that carries out what the core wants."""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from kvcoord.contract import ReplicaId, RunId
from kvnode.core import effects as ef
from kvnode.core import events as ev
from kvnode.core.messages import Append, Hello
from kvnode.core.replica import Replica
from kvnode.core.types import Batch, Config, Meta
from tests.simulation.checks import Checker
from tests.simulation.clock import Clock
from tests.simulation.disk import Disk
from tests.simulation.network import Connection, Side
from tests.simulation.record import SimulationError
from tests.simulation.service import Asked, GatheringService, HostModel
from tests.simulation.timeline import Mark, describe_state

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster

TICK = 0.05
LEAVE_TIMEOUT = 5.0


class Machine:
    """What outlives a process: clocks, disk, name."""

    def __init__(self, cluster: "Cluster", pod: str) -> None:
        self.cluster = cluster
        self.pod = pod
        self.rng = rng = cluster.loop.stream(f"machine {pod}")
        error = 0.0 if "clocks" in cluster.options.calm else cluster.timing.clock_rate_error
        rate = 1 + rng.choice([-error, error, rng.uniform(-error, error)])
        self.clock = Clock(cluster.loop, rate, rng.uniform(0, 1e6), rng.uniform(-300, 300))
        self.disk = Disk(ReplicaId(pod, f"{pod}-i1"), cluster.payloads)
        self.incarnations = 1
        self.runs = 0
        self.process: Process | None = None
        self.slow_disk = 0.0  # seconds that a sync may take at most, above the usual
        self.leaves = False  # it is being, or was, taken away

    def new_disk(self) -> None:
        """Another incarnation, empty."""
        self.incarnations += 1
        self.disk = Disk(ReplicaId(self.pod, f"{self.pod}-i{self.incarnations}"), self.cluster.payloads)
        self.cluster.checker.known_disk(self.disk)

    def sync_delay(self) -> float:
        rng = self.rng
        return rng.uniform(0.2, 2.0) * self.cluster.sync_base + rng.random() * self.slow_disk

    def start(self) -> None:
        """Run the process, if none runs."""
        if self.process is None and not self.leaves:
            self.runs += 1
            self.process = Process(self)
            self.process.begin()


class Process:
    """One run. Events are handled one at a time; what comes while it is paused or busy syncing waits."""

    def __init__(self, machine: Machine) -> None:
        cluster = machine.cluster
        self.machine, self.cluster, self.loop = machine, cluster, cluster.loop
        self.checker: Checker = cluster.checker
        self.pod, self.clock, self.rng = machine.pod, machine.clock, machine.rng
        self.disk: Disk = machine.disk
        self.run = RunId(self.disk.replica, f"{machine.pod}-r{machine.runs}")
        self.who = self.run.run
        self.alive, self.paused, self.busy = True, False, False
        self.leaving_since: float | None = None
        self.inbox: deque[ev.Event | Asked | None] = deque()  # None: what was gathered is due
        self.effects: deque[ef.Effect] = deque()
        self.connections: dict[int, tuple[Connection, Side]] = {}
        self._numbers = 0
        self._tick_waits = False
        self.disk_failed = False
        self.when_asking: Callable[[], None] | None = None  # done when it next asks for a change, which gets no answer
        self.led = 0  # epoch led before or after the newest step: what that step commits, its leader committed
        self.meant: dict[int, RunId] = {}  # whom each follower's hello named
        self.met: set[ReplicaId] = set()  # who said hello while it led
        self.heard: tuple[int, float] = (0, 0.0)  # newest Append of the leader: its number, when it was handled
        config = Config("cluster", 0, self.run, timing=cluster.timing, window=cluster.window, retry=0.1)
        log = self.disk.start()
        self.core: Replica = Replica(config, self.disk.meta, log, self.clock.now())
        self.host = HostModel(self, log.commit)
        self.service = GatheringService(self.host)

    @property
    def waits(self) -> bool:
        return bool(self.effects)

    def begin(self) -> None:
        self.note(f"starts as {self.disk.replica}, commit {self.core.commit}", Mark.START)
        self.checker.started(self)
        self.cluster.coordination.watch(self)
        self._tick()

    def note(self, what: str, mark: Mark = Mark.NOTE, *, link: int = 0, detail: bool = False) -> None:
        """A line of the timeline, with this run's epoch and the end of its log."""
        core = self.core
        self.loop.note(self.who, what, mark, epoch=core.epoch, index=core.end.index, link=link, detail=detail)

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    # --- input -------------------------------------------------------------------------------------------------------

    def deliver(self, item: ev.Event | Asked) -> None:
        if self.alive:
            self.inbox.append(item)
            self.pump()

    def deliver_gathered(self) -> None:
        if self.alive:
            self.inbox.append(None)
            self.pump()

    def _tick(self) -> None:
        if not self.alive:
            return
        self.loop.after(TICK * self.rng.uniform(0.8, 1.2), self._tick)
        if not self._tick_waits:
            self._tick_waits = True
            self.deliver(ev.Tick())

    def pump(self) -> None:
        """Go on with what is to be done. Raises SimulationError, of what the code raises, too."""
        try:
            self._go_on()
        except SimulationError:
            raise
        except Exception as e:
            raise SimulationError(self.loop.raised(self.who, "its process", e)) from e

    def _go_on(self) -> None:
        """Effects before the next event."""
        while self.alive and not self.paused and not self.busy:
            if self.effects:
                self._carry_out(self.effects.popleft())
            elif self.inbox:
                self._handle(self.inbox.popleft())
            else:
                return

    def _handle(self, item: ev.Event | Asked | None) -> None:
        self.led = self._leads()
        if isinstance(item, Asked):
            self.service.ask(item)
        elif item is None:
            self.service.gathered()
        else:
            if isinstance(item, ev.Tick):
                self._tick_waits = False
                self._leave_when_done()
            elif isinstance(item, ev.Received):
                self._note_received(item)
            elif isinstance(item, ev.Disconnected):
                self.connections.pop(item.conn, None)
            if self.alive:
                self._step(item)

    def now(self) -> float:
        return self.clock.now()

    def wall_ms(self) -> int:
        return self.clock.wall_ms()

    def propose(self, batch: Batch) -> None:
        """The service made a batch."""
        self._step(ev.Proposed(batch))

    def _leads(self) -> int:
        return self.core.leading.epoch if self.core.leading is not None else 0

    def _note_received(self, event: ev.Received) -> None:
        if isinstance(event.message, Hello):
            self.meant[event.conn] = event.message.to
            if self._leads():
                self.met.add(event.message.sender.replica)
        if isinstance(event.message, Append):
            self.heard = (event.message.sequence, self.clock.now())

    def _step(self, event: ev.Event) -> None:
        if isinstance(event, ev.Proposed):
            self.checker.proposes(self, event.batch)
        led = self._leads()
        try:
            self.effects.extend(self.core.step(event, self.clock.now()))
        except SimulationError:
            raise
        except Exception as e:
            raise SimulationError(self.loop.raised(self.who, f"step({event})", e)) from e
        self.led = self._leads() or led
        self.checker.stepped(self, event)

    # --- effects -----------------------------------------------------------------------------------------------------

    def _carry_out(self, effect: ef.Effect) -> None:
        match effect:
            case ef.Send(conn, message):
                self._send(conn, message)
            case ef.Write(batch):
                if not self.disk_failed:
                    self.checker.appends(self, batch)
                    self.disk.append(batch)
                    self.host.store.appended(batch)
                    self._flush()
            case ef.Committed(index, enough):
                if self.loop.verbose:
                    self.note(f"commits to {index}{'' if enough else ' with too few copies'}", Mark.COMMIT)
                self.checker.commits(self, index)
                self.host.store.commit(index)
                self.service.committed(index, enough=enough)
            case ef.ReadLog(conn, after):
                self.loop.after(self.rng.uniform(0, 0.005), self._log_read, conn, after)
            case ef.Persist(meta):
                self._block(self._persisted, meta)
            case ef.Cut(after):
                self.note(
                    f"cuts its log after {after.epoch}:{after.index}, it ended at {self.disk.end.index}", Mark.DISK
                )
                self.checker.cuts(self, after)
                self.host.cut_version = self.host.store.highest_version
                self.disk.cut(after.index)
                self._block(int)
            case ef.Inherit(horizon, purged_to):
                self.disk.inherit(horizon, purged_to)
                self._block(int)
            case ef.Dial(to):
                self.cluster.network.dial(self, to)
            case ef.Close(conn):
                if conn in self.connections:
                    connection, side = self.connections[conn]
                    connection.close(side)
            case ef.CompareAndSet(_, state) if self.checker.is_lost(self, state, self.met):
                self.note("would lead with an old copy of its disk, which is lost instead", Mark.FAULT)
                self._replace_disk()
            case ef.CompareAndSet(expected, state):
                self.note(f"asks coordination for {describe_state(state)}", Mark.COORDINATION)
                self.checker.asks(self, state)
                strike, self.when_asking = self.when_asking, None
                self.cluster.coordination.compare_and_set(self, expected, state, lost=strike is not None)
                if strike is not None:
                    strike()
            case ef.ReadState(number):
                self.cluster.coordination.read(self, number)
            case ef.OpenEpoch(epoch):
                self.inbox.appendleft(ev.Proposed(self.host.first_batch(epoch), internal=True))
            case ef.RoleChanged(role, epoch):
                self.note(f"is {role.value} in epoch {epoch}", Mark.ROLE)
                self.service.role_changed(role, epoch)
            case ef.Rebuild(reason):
                self._rebuild(reason)

    def _send(self, conn: int, message: object) -> None:
        self.checker.sends(self, conn, message)
        if conn in self.connections:
            connection, side = self.connections[conn]
            connection.send(side, message)  # type: ignore[arg-type]

    def _block(self, call: object, *args: object) -> None:
        """A sync that the process waits for, short as a rule."""
        if self.rng.random() < 0.5 and not self.machine.slow_disk:
            call(*args)  # type: ignore[operator]
            return
        self.busy = True
        self.loop.after(self.machine.sync_delay(), self._unblock, call, *args)

    def _unblock(self, call: object, *args: object) -> None:
        self.busy = False
        if self.alive:
            call(*args)  # type: ignore[operator]
            self.pump()

    def _persisted(self, meta: Meta) -> None:
        self.checker.persists(self, meta)
        self.disk.meta = meta

    def _flush(self) -> None:
        if not self.disk.flushing and self.disk.synced < len(self.disk.log):
            self.loop.after(self.machine.sync_delay(), self._flushed, self.disk.begin_flush())

    def _flushed(self, batches: int) -> None:
        if not self.alive or not self.disk.flushing:
            return
        end = self.disk.end_flush(batches)
        if self.loop.verbose:
            self.note(f"has {end.epoch}:{end.index} on disk", Mark.DISK, detail=True)
        self._flush()
        self.deliver(ev.Written(end))

    def fail_disk(self) -> None:
        """A write fails: nothing that was not synced is there any more."""
        self.disk_failed = True
        self.disk.power_off(self.rng)
        self.disk.torn = False
        self.deliver(ev.WriteFailed("input/output error"))

    def _log_read(self, conn: int, after: int) -> None:
        self.deliver(ev.LogRead(conn, after, self.disk.batches_after(after, self.rng.randint(1, 6))))

    def _rebuild(self, reason: str) -> None:
        self.note(f"is to be rebuilt from empty: {reason}", Mark.DISK)
        self.checker.rebuilds(self)
        self._replace_disk()

    def _replace_disk(self) -> None:
        self.end(silently=False)
        self.machine.new_disk()
        self.cluster.plan_start(self.machine, self.rng.uniform(0.05, 0.5))

    # --- the end -----------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """SIGTERM."""
        if self.leaving_since is None:
            self.leaving_since = self.clock.now()
            self.deliver(ev.LeaveRequested())

    def hand_over(self) -> None:
        """Someone wants another leader."""
        self.deliver(ev.HandOverRequested())

    def _leave_when_done(self) -> None:
        since = self.leaving_since
        if since is not None and (self.core.may_exit or self.clock.now() - since > LEAVE_TIMEOUT):
            self.note("exits as asked")
            self.end(silently=False)
            self.disk.kill(self.rng)
            self.cluster.plan_start(self.machine, self.rng.choice([0.1, 1.0, 4.0]))

    def end(self, *, silently: bool) -> None:
        """The process is gone; `silently`: its machine, too."""
        self.alive = False
        self.note("ends" if not silently else "ends with its machine, and nobody is told", Mark.END)
        self.machine.process = None
        self.cluster.network.gone(self, silently=silently)
        self.checker.ended(self)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        """Go on where it stopped, everything that came meanwhile is still to be handled."""
        self.paused = False
        self.pump()
