"""The invariants of docs/correctness.md, watched from outside: true time, every disk, every process at once.

A method is called where something happens, and fails the run at the first breach. Numbers are those of the list
there. Linearizability (15) and liveness (24) are judged at the end, retries (14) and versions (20) in `final_log`.
"""

from bisect import bisect_right
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import NamedTuple

from kvcoord.contract import PartitionState, ReplicaId, RunId
from kvnode.core import events as ev
from kvnode.core.messages import Ack, Append, Go, Refuse, RefuseReason, Welcome
from kvnode.core.types import Batch, Meta, Position
from kvstore.batch import Record, RecordType
from tests.simulation.disk import Disk, DiskCopy
from tests.simulation.record import Record as World
from tests.simulation.timeline import at, describe_state
from tests.simulation.watched import Named, Partition, Process


class Proposed(NamedTuple):
    """What a leader appended, and when."""

    epoch: int
    first: int
    last: int
    at: float


class Checker:
    """Everything that was ever promised, and who holds what."""

    def __init__(self, loop: World, cluster: Partition) -> None:
        self.loop = loop
        self.cluster = cluster
        self.disks: dict[ReplicaId, Disk] = {}
        self.held: list[Disk] = []  # what disks held when others took their place
        self.writers: dict[int, RunId] = {}  # of each epoch
        self.proposed: list[Proposed] = []  # all that leaders appended
        self.batches: dict[tuple[int, int], tuple[bytes, Position]] = {}  # by (epoch, first): bytes, what it follows
        self.records: dict[tuple[int, int], Record] = {}  # by (epoch, index), where logs may be compacted
        self.committed: list[int] = [0]  # the epoch of each committed index
        self.committed_at: list[float] = [0.0]
        self.promises: dict[ReplicaId, dict[RunId, float]] = {}  # until when each promise holds, by its own clock
        self.known_commits: dict[ReplicaId, int] = {}  # highest that each ever knew to be committed
        self._committed_of: dict[bytes, list[Record]] = {}  # each key's puts and deletes, to the index `_known_to`
        self._known_to = 0
        self.had: set[PartitionState] = set()  # that coordination ever had
        self.acted: PartitionState | None = None  # the newest state that any replica has acted on
        self.gone: dict[RunId, int] = {}  # Go sent: in which epoch
        self.fresh: dict[RunId, float] = {}
        self.memberships: list[PartitionState] = []  # that the operator asked for
        self.counts: dict[str, int] = {}

    def fail(self, process: Named, invariant: int, what: str) -> None:
        self.loop.fail(process.who, invariant, what)

    def count(self, what: str) -> None:
        """What happened how often, to see that a run tested something."""
        self.counts[what] = self.counts.get(what, 0) + 1

    def known_disk(self, disk: Disk) -> None:
        self.disks[disk.replica] = disk

    def put_back(self, disk: Disk, copy: DiskCopy) -> None:
        """An old copy takes this disk's place: what it knew of states and commits is gone, too, and nobody may count on it."""
        self.held.append(disk.image())
        disk.put_back(copy)
        disk.destroyed, disk.doubtful = disk.replica in self.cluster.coordination.state.in_sync, False
        self.known_commits.pop(disk.replica, None)
        leader = self.cluster.coordination.state.leader
        leads = leader is not None and leader.replica == disk.replica
        self.count(f"old copies{' of leaders' if leads else ' in sync' if disk.destroyed else ''}")

    def is_lost(self, process: Process, asked: PartitionState, met: AbstractSet[ReplicaId]) -> bool:
        """Whether an old copy, which lacks what is committed, asks for what it must not get, and nothing is promised then.

        That is to lead in another's place before a leader has met it, or in its own alone, if it has not `met` another in
        sync, as it leads.
        """
        disk, known = process.disk, process.core.state
        self._count_again(disk)
        if not disk.unmet or known is None or asked.leader != process.run:
            return False
        was_led = known.leader is not None and known.leader.replica == disk.replica
        return not was_led or (asked.in_sync == (disk.replica,) and not met & set(known.in_sync))

    def _count_again(self, disk: Disk) -> None:
        """An old copy that has all that is committed again is as good as any disk."""
        if disk.unmet and disk.epoch_at(self.top, durable=True) == self.committed[self.top]:
            disk.unmet = disk.destroyed = False

    def taken_away(self, pod: str) -> None:
        """A machine is gone with its disk, and nobody may count on it."""
        for disk in self.disks.values():
            if disk.replica.pod == pod:
                disk.taken_away = True
                self.held.append(disk.image())
                disk.restore(0)

    @property
    def top(self) -> int:
        """The highest committed index."""
        return len(self.committed) - 1

    # --- logs --------------------------------------------------------------------------------------------------------

    def proposes(self, process: Process, batch: Batch) -> None:
        writer = self.writers.setdefault(batch.epoch, process.run)
        if writer != process.run:
            self.fail(process, 1, f"appends in epoch {batch.epoch}, which is {writer.run}'s")
        self.proposed.append(Proposed(batch.epoch, batch.first, batch.last, self.loop.now))
        if self.gone.get(process.run) == batch.epoch:
            self.fail(process, 8, f"appends in epoch {batch.epoch} after it said Go")

    def appends(self, process: Process, batch: Batch) -> None:
        end = process.disk.end
        if batch.first != end.index + 1:
            self.fail(process, 10, f"appends {batch.first}..{batch.last} to a log that ends at {at(end)}")
        if batch.epoch < end.epoch:
            self.fail(process, 2, f"appends a batch of epoch {batch.epoch} after {at(end)}")
        if self.cluster.compacts:
            self._same_records(process, batch)
            return
        known = self.batches.setdefault((batch.epoch, batch.first), (batch.data, end))
        if known != (batch.data, end):
            self.fail(
                process, 3, f"epoch {batch.epoch} index {batch.first} follows {at(end)} here, {at(known[1])} elsewhere"
            )

    def _same_records(self, process: Process, batch: Batch) -> None:
        """Batches of a compacted log are others; what is in them is not."""
        for record in process.disk.payloads.of(batch).records:
            known = self.records.setdefault((batch.epoch, record.index), record)
            if known != record:
                self.fail(process, 3, f"epoch {batch.epoch} index {record.index} is {record} here, {known} elsewhere")

    def committed_state(self) -> dict[bytes, Record]:
        """The fold of all that is committed; of a log that may be compacted, so `cluster.compacts`."""
        state: dict[bytes, Record] = {}
        for index, epoch in enumerate(self.committed):
            record = self.records.get((epoch, index))
            if record is not None and record.type == RecordType.PUT:
                state[record.key] = record
            elif record is not None and record.type == RecordType.DELETE:
                state.pop(record.key, None)
        return state

    def cuts(self, process: Process, after: Position) -> None:
        disk = process.disk
        if after.index and disk.epoch_at(after.index) != after.epoch:
            self.fail(process, 3, f"cuts after {at(after)}, which it does not have")
        known = self.known_commits.get(disk.replica, 0)
        if disk.replica in self.cluster.coordination.state.in_sync:
            known = self.top  # others may cut what a newer leader has committed and will send them again
        for index in range(after.index + 1, min(disk.end.index, known) + 1):
            if disk.epoch_at(index) == self.committed[index]:
                self.fail(process, 9, f"cuts after {at(after)}, but {index} is committed")
        self.count("cuts")

    def persists(self, process: Process, meta: Meta) -> None:
        old = process.disk.meta
        if meta.accepted_epoch < old.accepted_epoch:
            self.fail(process, 2, f"accepted epoch falls from {old.accepted_epoch} to {meta.accepted_epoch}")
        if old.state is not None and (meta.state is None or meta.state.serial < old.state.serial):
            self.fail(process, 2, f"state falls from serial {old.state.serial}")
        known = [state for state in (old.state, meta.state) if state is not None]
        acts = any(process.disk.replica in state.in_sync for state in known)  # others lead nobody, whatever they know
        if acts and meta.state is not None and (self.acted is None or meta.state.age > self.acted.age):
            self.acted = meta.state

    def rebuilds(self, process: Process) -> None:
        disk = process.disk
        counted = disk.replica in self.cluster.coordination.state.in_sync
        if process.disk_failed and not process.core.in_sync:
            disk.destroyed = True  # a compare-and-set that adds it may be on its way: then as if the disk were lost
        elif counted or process.core.in_sync:
            self.fail(process, 4, f"wipes {disk.replica}, which is in sync")
        else:
            disk.wiped = True
        self.count("rebuilds")

    # --- commit ------------------------------------------------------------------------------------------------------

    def commits(self, process: Process, index: int) -> None:
        """Everything up to `index` is committed, by this process's word."""
        disk = process.disk
        new = False
        for i in range(process.host.store.applied + 1, index + 1):
            epoch = disk.epoch_at(i, durable=True)
            if epoch is None:
                self.fail(process, 11, f"commits {i}, which it does not have durably; it has {at(disk.durable)}")
                return
            if i > self.top:
                if not process.led:
                    self.fail(process, 16, f"takes {i} for committed, which no leader has committed")
                self.committed.append(epoch)
                self.committed_at.append(self.loop.now)
                new = True
            elif self.committed[i] != epoch:
                self.fail(process, 16, f"commits {i} of epoch {epoch}; committed is that of epoch {self.committed[i]}")
        self.known_commits[disk.replica] = max(index, self.known_commits.get(disk.replica, 0))
        if new:
            self.check_in_sync(process)

    def check_in_sync(self, process: Named) -> None:
        """Invariant 4: what is committed is durable on every member of the in-sync set."""
        top = self.top
        for replica in self.cluster.coordination.state.in_sync:
            disk = self.disks[replica]
            self._count_again(disk)
            if not disk.destroyed and top and disk.epoch_at(top, durable=True) != self.committed[top]:
                has = f"it has {at(disk.durable)} durably"
                self.fail(process, 4, f"{replica} is in sync without {self.committed[top]}:{top}, committed; {has}")

    def acknowledged(self, process: Process, index: int) -> None:
        """A client is told OK for what ends at this index."""
        if index > self.top:
            self.fail(process, 16, "acknowledges a write that is not committed and applied")
        epoch = self.committed[index]
        copies = self._copies(index, epoch)
        least = min(self.cluster.coordination.state.min_in_sync, process.core.state.min_in_sync)
        if copies < least:
            self.fail(process, 21, f"acknowledges {index} with {copies} durable copies of {least}")
        self._serves(process)
        self.count("acknowledged")

    def _copies(self, index: int, epoch: int) -> int:
        """How many replicas have it durably, or had it when their disk was lost. What is wiped is none's any more."""
        disks = (disk for disk in (*self.disks.values(), *self.held) if not disk.wiped)
        return len({disk.replica for disk in disks if disk.epoch_at(index, durable=True) == epoch})

    def answered(self, process: Process, index: int) -> None:
        """A linearizable read is answered with the record at this index; 0: with none, or one that `shows` was told of."""
        if index:
            self.shows(process, index)
        self._serves(process)
        self.count("read")

    def shows(self, process: Process, index: int) -> None:
        """The record at this index is read, as fresh as asked or not."""
        if index > self.top or process.disk.epoch_at(index) != self.committed[index]:
            self.fail(process, 16, f"shows a record (at {index}) that is not committed and applied")

    def shows_prefix(self, process: Process, key: bytes, record: Record | None, applied: int) -> None:
        """Invariant 17: what is read of a key is the newest of it that is committed, as far as has been applied."""
        found, wanted = record.index if record is not None else 0, self._newest(key, applied)
        if found != wanted:
            what = f"the record at {found}" if found else "nothing"
            self.fail(process, 17, f"shows {what} for {key!r}; applied to {applied}, it should show that at {wanted}")

    def _newest(self, key: bytes, upto: int) -> int:
        """The index of its newest committed record at or below this one; 0 where it has no value. Where logs are compacted."""
        for index in range(self._known_to + 1, self.top + 1):
            record = self.records.get((self.committed[index], index))
            if record is not None and record.type in (RecordType.PUT, RecordType.DELETE):
                self._committed_of.setdefault(record.key, []).append(record)
        self._known_to = self.top
        for record in reversed(self._committed_of.get(key, [])):
            if record.index <= upto:
                return record.index if record.type == RecordType.PUT else 0
        return 0

    def _serves(self, process: Process) -> None:
        if not process.led:
            self.fail(process, 8, "serves and does not lead")
        elif self.gone.get(process.run) == process.led:
            self.fail(process, 8, f"serves in epoch {process.led} after it said Go")

    # --- messages ----------------------------------------------------------------------------------------------------

    def sends(self, process: Process, conn: int, message: object) -> None:
        if isinstance(message, Ack):
            self._acks(process, conn, message)
        elif isinstance(message, Go):
            self.gone[process.run] = message.epoch
            self.count("hand-overs")
        elif isinstance(message, Refuse) and message.reason is RefuseReason.BEHIND:
            self.gone[process.run] = message.epoch
            self.count("gives way")
        elif isinstance(message, Welcome):
            meant = process.meant.get(conn)
            if meant != process.run:
                self.fail(process, 25, f"welcomes a follower that means {meant}")
        elif isinstance(message, Append):
            writer = self.writers.setdefault(message.epoch, process.run)
            if writer != process.run:
                self.fail(process, 1, f"sends in epoch {message.epoch}, which is {writer.run}'s")

    def _acks(self, process: Process, conn: int, ack: Ack) -> None:
        disk = process.disk
        if ack.durable > disk.durable.index:
            self.fail(process, 22, f"acknowledges {ack.durable}, has {at(disk.durable)} durably")
        if process.core.claim is not None:
            self.fail(process, 7, f"promises in epoch {ack.epoch} while its claim is outstanding")
        leader = process.core.following.leader
        number, heard_at = process.heard
        if ack.heard and ack.heard == number and leader is not None and conn == process.core.following.conn:
            until = heard_at + self.cluster.timing.lease
            held = self.promises.setdefault(disk.replica, {})
            held[leader] = max(until, held.get(leader, 0.0))

    def asks(self, process: Process, state: PartitionState) -> None:
        """Invariant 7: nobody claims while a promise of its to another holds."""
        known = process.core.state
        if known is None or state.leader != process.run or state.epoch == known.epoch:
            return
        self.count("claims")
        leader = known.leader  # older promises are void: that epoch is over
        until = self.promises.get(process.disk.replica, {}).get(leader, 0.0) if leader is not None else 0.0
        if (
            leader is None
            or leader == process.run
            or until <= process.clock.now()
            or self.gone.get(leader) == known.epoch
        ):
            return
        if self.cluster.ended.get(leader) is None or leader.run not in self.cluster.coordination.words:
            self.fail(
                process,
                7,
                f"claims epoch {state.epoch}; its promise to {leader.run} holds for {until - process.clock.now():.6f} s",
            )

    # --- coordination ------------------------------------------------------------------------------------------------

    def state_changed(self, process: Named, before: PartitionState, after: PartitionState) -> None:
        if after.epoch < before.epoch or after.serial != before.serial + 1:
            self.fail(process, 2, f"epoch {before.epoch} serial {before.serial} becomes {after.epoch}, {after.serial}")
        if after.leader != before.leader and after.epoch == before.epoch:
            self.fail(process, 1, f"epoch {after.epoch} changes hands from {before.leader} to {after.leader}")
        if after.leader is None or after.leader.replica not in after.in_sync:
            self.fail(process, 4, f"leader {after.leader} is not in sync")
        if len(after.in_sync) != len({r.pod for r in after.in_sync}):
            self.fail(process, 4, f"two incarnations of a pod are in sync: {after.in_sync}")
        self.had.add(after)
        self._check_membership(process, before, after)
        self.count("in-sync changes" if after.epoch == before.epoch else "epochs")
        self.check_in_sync(process)
        for other in self.cluster.processes():
            self._check_effective(other)

    def asks_membership(self, state: PartitionState) -> None:
        """The operator asks for this state."""
        self.memberships.append(state)

    def _check_membership(self, process: Named, before: PartitionState, after: PartitionState) -> None:
        """Invariant 26: only the operator says which pods belong to a partition, and nobody else comes to be in sync."""
        strangers = [r for r in after.in_sync if r not in before.in_sync and not before.belongs(r)]
        if strangers:
            self.fail(process, 26, f"{', '.join(map(str, strangers))} joins, and is none of {before.replicas}")
        if (after.replicas, after.min_in_sync) == (before.replicas, before.min_in_sync):
            return
        if after not in self.memberships or (after.leader, after.in_sync) != (before.leader, before.in_sync):
            self.fail(process, 26, f"{before.replicas} becomes {after.replicas}, which the operator did not ask for")
        self._count_membership("added", set(after.replicas) - set(before.replicas), before)
        self._count_membership("removed", set(before.replicas) - set(after.replicas), before)

    def _count_membership(self, what: str, pods: set[str], before: PartitionState) -> None:
        in_sync = {r.pod for r in before.in_sync}
        for pod in pods:
            leads = before.leader is not None and before.leader.replica.pod == pod
            self.count(f"replicas {what}{', leading' if leads else ', in sync' if pod in in_sync else ''}")

    def state_rebuilt(self, process: Process, after: PartitionState) -> None:
        """Invariant 23: what is put back is the newest state that anyone acted on, or a later one, of a later generation."""
        acted, found = self.acted, replace(after, generation=after.generation - 1, serial=after.serial - 1)
        assert acted is not None
        later = found in self.had and found.age > acted.age  # the operator's, which only one who is not in sync knew
        if found != acted and not later:
            what, instead = (
                f"{describe_state(s)} (generation {s.generation} serial {s.serial})" for s in (acted, after)
            )
            self.fail(process, 23, f"{what} was acted on, {instead} is put back")
        self.had.add(after)
        self.count("states put back")
        self.check_in_sync(process)
        for other in self.cluster.processes():
            self._check_effective(other)

    def _check_effective(self, process: Process) -> None:
        leading, state = process.core.leading, self.cluster.coordination.state
        if leading is not None and leading.epoch == state.epoch and not set(state.in_sync) <= set(leading.effective):
            effective = ",".join(map(str, leading.effective))
            self.fail(process, 5, f"counts {effective}, in sync are {','.join(map(str, state.in_sync))}")

    # --- processes ---------------------------------------------------------------------------------------------------

    def started(self, process: Process) -> None:
        disk = process.disk
        disk.wiped = False  # it was to be, and its process ended before
        if disk.doubtful:
            disk.destroyed = disk.doubtful = False
        self.check_in_sync(process)

    def ended(self, process: Process) -> None:
        self.cluster.ended[process.run] = self.loop.now

    def stepped(self, process: Process, event: ev.Event) -> None:
        """After every step of a process."""
        core = process.core
        if not core.commit <= core.durable <= core.end.index:
            self.fail(process, 11, f"commit {core.commit}, durable {core.durable}, end {at(core.end)} after {event}")
        if core.durable > process.disk.durable.index and not process.waits and not process.disk_failed:
            self.fail(process, 22, f"believes {core.durable} durable, {at(process.disk.durable)} is")
        if core.leading is not None:
            self._check_effective(process)
            self._check_lease(process)
        fresh_at = core.fresh_at
        if fresh_at != self.fresh.get(process.run, fresh_at):
            self._check_fresh(process, process.clock.true(fresh_at))
        self.fresh[process.run] = fresh_at

    def _holds(self, process: Process) -> bool:
        return process.alive and process.clock.now() < process.core.lease_until

    def _check_lease(self, process: Process) -> None:
        """Invariant 6, at true times: two valid leases never overlap."""
        if not self._holds(process):
            return
        for other in self.cluster.processes():
            if other is not process and self._holds(other):
                self.fail(
                    process,
                    6,
                    f"holds a valid lease (epoch {process.core.epoch}), and so does {other.who} "
                    f"(epoch {other.core.epoch})",
                )

    def _check_fresh(self, process: Process, at: float) -> None:
        """Invariant 17: what a follower calls fresh at a time holds what was committed then."""
        committed = bisect_right(self.committed_at, at) - 1
        if process.core.commit < committed:
            self.fail(
                process, 17, f"calls itself fresh at {at:.6f} with {process.core.commit}, {committed} was committed"
            )
