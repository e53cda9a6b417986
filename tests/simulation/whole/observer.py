"""What the checks are told of a node's process: it looks between the core and the shell, at the store's log and the answers.

Beside every store a shadow of its log is kept (`tests.simulation.disk`): who wrote what, and what of it is durable.
At each start the store must hold everything that the shadow calls durable, and nothing that was never written.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from kvnode.core import effects as ef
from kvnode.core import events as ev
from kvnode.core.messages import Ack, Append, Go, Hello
from kvnode.core.types import Batch
from kvnode.operations import Code, Kind, Outcome, ReadMode, Request
from kvnode.service import Service
from kvnode.shell.host import Host
from kvnode.work import Puts, Transaction, Work
from kvstore.batch import Record, iter_batches, iter_records
from kvstore.errors import CorruptionError
from kvstore.store import Store
from tests.simulation.checks import Checker
from tests.simulation.network import frequent
from tests.simulation.timeline import Mark, at, describe, describe_state
from tests.simulation.whole.world import Plug

if TYPE_CHECKING:
    from tests.simulation.whole.cluster import Partition
    from tests.simulation.whole.nodes import NodeProcess

ALL = 1 << 40


class Observer:
    """Watches one process."""

    def __init__(self, process: "NodeProcess") -> None:
        self.process = process
        self.checker: Checker = process.checker
        self.partition: Partition = process.partition

    def compare(self, store: Store) -> None:
        """The log found is what was written: all that was durable, and no other bytes."""
        shadow, end = self.process.disk, store.end.index
        if store.incarnation_lost:  # whatever a boot without syncs has left; nobody counts on it (rule 11)
            for header, data in iter_batches(store.read(0, ALL)):
                shadow.append(Batch(header.epoch, header.first, header.last, data))
        kept = [batch for batch in shadow.log if batch.last <= end]
        if shadow.durable.index > end and not shadow.destroyed:
            self.checker.fail(self.process, 22, f"finds a log to {end} at its start, {at(shadow.durable)} was durable")
        if not shadow.destroyed:
            self._compare_records(store, kept)
        shadow.restore(len(kept))

    def can_read(self, store: Store) -> bool:
        """Whether `compare` can learn of a new incarnation's log. A start reads no segment that has a hint: rot is found here."""
        try:
            for _ in iter_batches(store.read(0, ALL)):
                pass
        except CorruptionError as e:
            self.process.note(f"finds damage as soon as it has started: {e}", Mark.DISK)
            self.checker.count("damage found by upkeep")
            return False
        return True

    def _compare_records(self, store: Store, kept: Sequence[Batch]) -> None:
        """Above the horizon every record that was written is there; below it, none that was not."""
        written = {r.index: r for batch in kept for r in self.process.disk.payloads.of(batch).records}
        found = {r.index: r for _, data in iter_batches(store.read(0, ALL)) for r in iter_records(data)}
        missing = [i for i in written if i > store.horizon and i not in found]
        other = [i for i, r in found.items() if written.get(i) != r]
        if missing or other:
            what = f"misses {missing[:5]} of its log to {store.end.index} at its start, and has others at {other[:5]}"
            self.checker.fail(self.process, 3, what)

    def observe_store(self, store: Store) -> None:
        """Look at every record that is read from it (16, 17), and tell of compactions."""
        get, get_many, maintain = store.get, store.get_many, store.maintain

        def look(key: bytes, record: Record | None) -> None:
            if self.process.serving:
                if record is not None:
                    self.checker.shows(self.process, record.index)
                self.checker.shows_prefix(self.process, key, record, store.applied)

        def read(key: bytes) -> Record | None:
            record = get(key)
            look(key, record)
            return record

        def read_many(keys: Sequence[bytes]) -> list[Record | None]:
            records = get_many(keys)
            for key, record in zip(keys, records, strict=True):
                look(key, record)
            return records

        def watched() -> bool:
            before, purged = store.horizon, store.purged_to
            done = self._upkeep(maintain)
            if done and store.horizon != before:
                self.process.note(f"has compacted its log below {store.horizon}", Mark.DISK, detail=True)
                self.checker.count("compactions")
                if store.purged_to != purged:
                    self.checker.count("purges of deletes")
            return done

        store.get = read  # type: ignore[method-assign]
        store.get_many = read_many  # type: ignore[method-assign]
        store.maintain = watched  # type: ignore[method-assign]

    def _upkeep(self, maintain: Callable[[], bool]) -> bool:
        """A piece of it, whose next read may be one that fails; in this world nobody else reads meanwhile."""
        process = self.process
        files = process.machine.files
        files.failing_reads = int(process.upkeep_fails)
        try:
            return maintain()
        finally:
            process.upkeep_fails, files.failing_reads = bool(files.failing_reads), 0

    def observe(self, host: Host) -> None:
        """Put the checks between the core and the shell."""
        step, damaged = host.core.step, host.damaged

        def found(error: Exception) -> None:
            self.checker.count("damage found while serving")
            damaged(error)

        def watched(event: ev.Event, now: float) -> list[ef.Effect]:
            if isinstance(event, ev.Proposed):
                self.checker.proposes(self.process, event.batch)
            elif isinstance(event, ev.Received):
                self._note_received(event)
            led, leading = self.process.leads(), host.core.leading
            effects = step(event, now)
            self.process.led = self.process.leads() or led
            slow = leading is not None and self.process.run.replica in leading.paces.slow
            if slow and any(isinstance(e, ef.Send) and isinstance(e.message, Go) for e in effects):
                self.checker.count("hand-overs for slow disks")
            self.checker.stepped(self.process, event)
            return effects

        host.core.step = watched  # type: ignore[method-assign]
        host.damaged = found  # type: ignore[method-assign]
        before: dict[type[Any], Callable[[Any], None]] = {
            ef.Write: lambda e: self._appends(e.batch),
            ef.Committed: self._commits,
            ef.Cut: self._cuts,
            ef.Send: self._sends,
            ef.Persist: self._persists,
            ef.CompareAndSet: self._asks,
            ef.RoleChanged: lambda e: self.process.note(f"is {e.role.value} in epoch {e.epoch}", Mark.ROLE),
            ef.Rebuild: lambda _: self.checker.rebuilds(self.process),
        }
        for kind, check in before.items():
            host._handlers[kind] = _both(check, host._handlers[kind])
        host._handlers[ef.Persist] = _both(host._handlers[ef.Persist], self._persisted)

    def _appends(self, batch: Batch) -> None:
        if not self.process.disk_failed:
            self.checker.appends(self.process, batch)
            self.process.disk.append(batch)
            for record in self.process.disk.payloads.of(batch).records:
                self.partition.places[record.version] = record.index

    def _commits(self, effect: ef.Committed) -> None:
        self.process.note(f"commits to {effect.index}{'' if effect.enough else ' with too few copies'}", Mark.COMMIT)
        self.checker.commits(self.process, effect.index)

    def _cuts(self, effect: ef.Cut) -> None:
        after = effect.after
        self.process.note(
            f"cuts its log after {after.epoch}:{after.index}, it ended at {self.process.disk.end.index}", Mark.DISK
        )
        self.checker.cuts(self.process, after)
        self.process.disk.cut(after.index)

    def _persists(self, effect: ef.Persist) -> None:
        self.checker.persists(self.process, effect.meta)

    def _persisted(self, effect: ef.Persist) -> None:
        self.process.disk.meta = effect.meta

    def _asks(self, effect: ef.CompareAndSet) -> None:
        self.process.note(f"asks coordination for {describe_state(effect.state)}", Mark.COORDINATION)
        self.checker.asks(self.process, effect.state)

    def _sends(self, effect: ef.Send) -> None:
        self.checker.sends(self.process, effect.conn, effect.message)
        connection = self.process.host._connections.get(effect.conn)
        plug = connection._transport if connection is not None else None
        if self.process.loop.verbose and isinstance(plug, Plug):
            plug.link = self.process.loop.timeline.link()
            what = f"sends {plug.peer.actor.who} {describe(effect.message)}"
            self.process.note(what, Mark.SEND, link=plug.link, detail=frequent(effect.message))

    def _note_received(self, event: ev.Received) -> None:
        message = event.message
        if isinstance(message, Append):
            self.process.heard = (message.sequence, self.process.clock.now())
        elif isinstance(message, Hello):
            self.process.meant[event.conn] = message.to
        connection = self.process.host._connections.get(event.conn)
        plug = connection._transport if connection is not None else None
        if self.process.loop.verbose and isinstance(plug, Plug):
            what = f"gets from {plug.peer.actor.who} {describe(message)}"
            detail = isinstance(message, Ack) or frequent(message)
            self.process.note(what, Mark.RECEIVE, link=plug.link, detail=detail)

    def observe_service(self, service: Service) -> None:
        """All that is shown must be committed (invariants 16, 21)."""
        submit = service.submit

        def watched(request: Request, answer: Callable[[Sequence[Outcome] | None], None]) -> None:
            self.process.led = self.process.leads() or self.process.led

            def checked(outcomes: Sequence[Outcome] | None) -> None:
                if outcomes is not None and request.read_mode != ReadMode.LINEARIZABLE and not self.process.leads():
                    self.checker.count("read at a follower")
                elif outcomes is not None and request.read_mode == ReadMode.LINEARIZABLE:
                    for op, outcome in zip(request.operations, outcomes, strict=True):
                        self._check_answer(op[0], outcome)
                answer(outcomes)

            submit(request, checked)

        service.submit = watched  # type: ignore[method-assign]
        self._observe_redis(service)

    def _observe_redis(self, service: Service) -> None:
        """What the Redis door asks of the service: who says that it may be read, and that a group is done, must lead."""
        unfit, settle = service.unfit, service._settle

        def looked(slot: int | None, *, max_lag: float | None = None) -> Outcome | None:
            refused = unfit(slot, max_lag=max_lag)
            if refused is None and max_lag is None:
                self._answers()
            elif refused is None and not self.process.leads():
                self.checker.count("read at a follower")
            return refused

        def settled(work: Work, refused: Outcome | None) -> None:
            if refused is None and isinstance(work, Puts | Transaction):
                self._answers()
                self.checker.count("groups done" if isinstance(work, Transaction) else "puts done")
            settle(work, refused)

        service.unfit = looked  # type: ignore[method-assign]
        service._settle = settled  # type: ignore[method-assign]

    def _answers(self) -> None:
        self.process.led = self.process.leads() or self.process.led
        self.checker.answered(self.process, 0)  # its records are looked at as they are read

    def _check_answer(self, kind: int, outcome: Outcome) -> None:
        if outcome.code not in (Code.OK, Code.ALREADY_EXISTS, Code.VERSION_MISMATCH) or not outcome.version:
            return
        index = self.partition.places.get(outcome.version, self.checker.top + 1)
        if outcome.code == Code.OK and kind != Kind.GET:
            self.checker.acknowledged(self.process, index)
        else:
            self.checker.answered(self.process, index)


def _both(first: Callable[[Any], None], second: Callable[[Any], None]) -> Callable[[Any], None]:
    def run(effect: Any) -> None:
        first(effect)
        second(effect)

    return run
