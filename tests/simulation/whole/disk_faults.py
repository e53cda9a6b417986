"""Trouble with disks. None takes the last good copy of a partition: that is data loss by design.

What goes wrong by itself (a sync, a write, a read) does so when the node next does that, whatever it does it for; and only
if the partition has another good copy at that moment (`may_fail`): else the disk turns out to be well.
"""

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from kvcoord.contract import ReplicaId
from kvnode.core.types import Role
from kvstore.meta import read_meta
from tests.simulation.trouble import Trouble

if TYPE_CHECKING:
    from tests.simulation.disk import Disk
    from tests.simulation.whole.cluster import Partition, WholeCluster
    from tests.simulation.whole.machines import Machine
    from tests.simulation.whole.nodes import NodeProcess

DATA = Path("/data")
EXCLUDED_AFTER = 8.0  # seconds that a machine is away before an old copy of its disk is put in
OLD_PART = 0.6  # of the log; in its newest part damage can't be told from a torn write

# Kinds in whose seeds something else is as they need it, too.
SLOW_FOR_LONG = "slow_for_long"  # disks are judged sooner
UNREADABLE_TO_UPKEEP = "unreadable_to_upkeep"  # nobody else reads old records: logs are not verified meanwhile
COPY_UNDER_WAY = "copy_under_way"  # logs are compacted early and copied in small pieces, which newcomers look at

HARMLESS = ("a write fails", "there is no room")  # what the disk holds is as good as before
DOUBTFUL = ("a sync fails", "a place can't be read")  # it counts again if a start finds it well


class DiskTrouble(Trouble["Machine"]):
    """Disks that fail, fill, rot, are lost, or come back as they were."""

    cluster: "WholeCluster"

    @abstractmethod
    def _running(self) -> "NodeProcess | None":
        """The next victim, if it serves."""

    @abstractmethod
    def _end(self, machine: "Machine", *, silently: bool) -> str:
        """End the process on this machine; its name, or "" when there is none."""

    # --- whose disk may go -------------------------------------------------------------------------------------------

    def _expendable(self) -> "NodeProcess | None":
        """A process whose disk may be lost: its partition has another good one, and nothing is under way."""
        process = self._running()
        return process if process is not None and self._others_are_good(process.machine) else None

    def _others_are_good(self, machine: "Machine") -> bool:
        partition = machine.partition
        state = partition.state
        if partition.lost:  # who was in sync must answer before the state is put back
            return False
        if self.cluster.coordination.pending or any(map(_is_asking, partition.processes())):
            return False
        others = [m for m in partition.machines.values() if m is not machine]
        if any(m.down_for_good or (m.process and m.process.serving and m.process.disk_failed) for m in others):
            return False
        found = [r for r in state.in_sync if r.pod != machine.pod]
        return bool(found) and all(self._answers(partition, r) for r in found)

    @staticmethod
    def _answers(partition: "Partition", replica: ReplicaId) -> bool:
        """Whether this replica can say what it knows, now or later: it is not gone, nor about to be."""
        machine, disk = partition.machines.get(replica.pod), partition.checker.disks[replica]
        return machine is not None and not machine.leaves and not disk.destroyed and not disk.taken_away

    def may_fail(self, machine: "Machine", what: str) -> bool:
        """Whether a disk fails now that it is about to."""
        if not self._others_are_good(machine):
            return False
        self._note(f"{what} on {machine.pod}")
        machine.partition.checker.count(what)
        if what not in HARMLESS:
            disk = _shadow(machine)
            disk.doubtful = what in DOUBTFUL and (disk.doubtful or not disk.destroyed)
            disk.destroyed = True
        return True

    # --- what goes wrong by itself -----------------------------------------------------------------------------------

    def failed_sync(self) -> None:
        """The next sync: of the log, of `meta`, of what a compaction made."""
        process = self._expendable()
        if process is not None:
            self._note(f"the next sync of {process.who} is to fail")
            process.machine.files.failing_syncs = 1

    def failed_write(self) -> None:
        """The next write: of the log, of `meta`, of what a compaction makes; half of it is done."""
        process = self._expendable()
        if process is not None:
            self._note(f"the next write of {process.who} is to fail")
            process.machine.files.failing_writes = 1

    def failed_read(self) -> None:
        """A place of the log can't be read any more."""
        process = self._expendable()
        if process is not None:
            path, at, length = self._place(process.machine)
            if path is not None:
                process.machine.files.damage(path, at)
                self._note(f"{path.name} of {process.who} can't be read at {at} of {length}")

    def unreadable_to_upkeep(self) -> None:
        """A place that can't be read any more, which the log's upkeep is the first to meet: in a compaction, or for a hint."""
        process = self._expendable()
        if process is not None:
            self._note(f"what the upkeep of {process.who} reads next can't be read any more")
            process.upkeep_fails = True

    def flipped_bit(self) -> None:
        """One bit of the log. Half of the times the process ends with it, so that it is met at a start."""
        process = self._expendable()
        if process is None:
            return
        machine, bit = process.machine, self.rng.randrange(8)
        path, at, length = self._place(machine)
        if path is None:
            return
        what = f"a bit of {path.name} of {process.who} turns, at {at} of {length}"
        if self.rng.random() < 0.5:
            machine.files.damage(path, at, bit)
            self._note(what)
            return
        machine.files.flip(path, at, bit)
        process.disk.destroyed = True
        self._note(f"{what}, and it is killed")
        self._end(machine, silently=False)
        self.cluster.plan_start(machine, self._length())

    def _place(self, machine: "Machine") -> tuple[Path | None, int, int]:
        """Somewhere in the old part of a log: the file, where in it, and its length; None if there is no log."""
        image = machine.files.snapshot()
        logs = {path: len(data.rstrip(b"\0")) for path, data in image.items() if path.suffix == ".log"}
        at = int(self.rng.random() * sum(logs.values()) * OLD_PART)
        for path, length in sorted(logs.items()):
            if at < length:
                return path, at, length
            at -= length
        return None, 0, 0

    # --- what is done to it ------------------------------------------------------------------------------------------

    def full_disk(self) -> None:
        """Not one byte more fits."""
        process = self._expendable()
        if process is not None:
            files = process.machine.files
            files.capacity = sum(files.sizes()) + self.rng.choice([0, 100])
            self._note(f"the disk of {process.who} is full")
            self._for(self._length(), lambda: setattr(files, "capacity", None))

    def slow_for_long(self) -> None:
        """The disk of a leader, until all faults end, so that it hands over, if nothing else happens to it before."""
        leader = self.rng.choice(self.cluster.partitions).state.leader
        if leader is None:
            return
        machine = self.cluster.machines[leader.replica.pod]
        machine.slow_disk = self.rng.choice([0.3, 0.6])
        self._note(f"syncs of {machine.pod} take up to {machine.slow_disk} s from now on")

    def empty_disk(self) -> None:
        """The volume is lost; the pod comes back with an empty one."""
        process = self._expendable()
        if process is not None:
            self._empty(process, self._length())

    def _empty(self, process: "NodeProcess", back: float) -> None:
        machine = process.machine
        self._note(f"the disk of {machine.pod} is lost (with {process.who}), an empty one takes its place")
        process.disk.destroyed = True
        self._end(machine, silently=True)
        machine.files = type(machine.files)()
        self.cluster.plan_start(machine, back)

    def copy_under_way(self) -> None:
        """A follower begins from empty, and what it is told by the others of its partition takes its time: a copy of the log is seconds under way."""
        partition = self.rng.choice(self.cluster.partitions)
        followers = [p for p in partition.processes() if p.core.role is Role.FOLLOWER]
        followers = [p for p in followers if self._others_are_good(p.machine)]
        if not followers:
            return
        process = self.rng.choice(followers)
        late, pod, seconds = self.network.late, process.pod, self.rng.choice([0.2, 0.5])
        ways = [(other, pod) for other in partition.pods if other != pod]
        self._empty(process, 0.1)
        late.update(dict.fromkeys(ways, seconds))
        self._note(f"what {pod} is told takes {seconds} s")
        self._for(self.rng.uniform(4.0, 8.0), lambda: late.update(dict.fromkeys(ways, 0.0)))

    def old_disk(self) -> None:
        """A copy of its disk from now is put in later, once the machine was away for long enough to be taken out."""
        process = self._expendable()
        if process is None or self.cluster.durability == "memory":  # of the same boot, a copy is no stranger
            return
        if process.core.role is Role.LEADER:
            self._old_leader(process)
            return
        machine, replica = process.machine, process.run.replica
        files, copy, kept = machine.files, machine.files.copy(), process.disk.copy()
        self._note(f"the disk of {machine.pod} is copied")

        def put_in() -> None:
            machine.down_for_good -= 1
            partition = machine.partition
            gone = replica not in partition.state.in_sync and not self.cluster.coordination.pending
            if gone and not partition.lost and machine.files is files and not self.over:
                self._note(f"{machine.pod} comes back with an old copy of its disk")
                machine.files = copy
                machine.partition.checker.put_back(process.disk, kept)
            machine.start()

        def stop() -> None:
            if machine.process is None or (machine.process.serving and machine.process.disk is not process.disk):
                return
            machine.down_for_good += 1
            self._end(machine, silently=True)
            machine.power_off(self.rng)
            self._note(f"power off {machine.pod}, to put in the old copy")
            self._for(EXCLUDED_AFTER, put_in)

        self.loop.after(self.rng.uniform(0.5, 3.0), stop)

    def _old_leader(self, process: "NodeProcess") -> None:
        """A copy of a leader's disk from now is put in at once after it has led a later epoch: in sync, and named as leader."""
        machine, disk = process.machine, process.disk
        copy, kept, epoch = machine.files.copy(), disk.copy(), process.core.epoch
        self._note(f"the disk of {machine.pod}, which leads, is copied, and {process.who} killed")
        self._end(machine, silently=False)
        self.cluster.plan_start(machine, 0.1)

        def put_in() -> None:
            state, now = machine.partition.state, machine.process
            leads = state.leader is not None and state.leader.replica == disk.replica and state.epoch > epoch
            if self.over or now is None or not now.serving or now.disk is not disk or not leads:
                return
            if self._others_are_good(machine):
                self._end(machine, silently=False)
                self._note(f"{machine.pod}, leader in epoch {state.epoch}, comes back with its disk of epoch {epoch}")
                machine.files = copy
                machine.partition.checker.put_back(disk, kept)
                self.cluster.plan_start(machine, self.rng.choice([0.0, 0.5, 1.5]))
                if self.rng.random() < 0.5:  # it alone is up for longer than the promises of all
                    self._end_others(machine)

        self.loop.after(self.rng.uniform(0.5, 3.0), put_in)

    def _end_others(self, machine: "Machine") -> None:
        for other in machine.partition.machines.values():
            if other is not machine and self._end(other, silently=False):
                self._note(f"kill {other.pod}, too")
                self.cluster.plan_start(other, self.rng.uniform(6.0, 9.0))


def _is_asking(process: "NodeProcess") -> bool:
    """Whether it is about to change the in-sync set, which can't be called off."""
    core = process.core
    return core.claim is not None or (core.leading is not None and core.leading.attempt is not None)


def _shadow(machine: "Machine") -> "Disk":
    """Of the disk that is in the machine, be its process up already or not."""
    if machine.process is not None and machine.process.serving:
        return machine.process.disk
    meta = read_meta(machine.files, DATA)
    assert meta is not None
    return machine.shadow(meta.incarnation)
