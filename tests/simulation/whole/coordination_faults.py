"""Trouble with coordination's data and sessions: ends of sessions, data that is lost or turned back, whoever knows of it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kvcoord import codec
from kvcoord.cells import Cell, partition_cell
from kvnode.shell.testimony import Answer
from tests.simulation.timeline import Mark
from tests.simulation.whole.disk_faults import DiskTrouble

if TYPE_CHECKING:
    from tests.simulation.whole.cluster import Partition
    from tests.simulation.whole.coordination import Coordination
    from tests.simulation.whole.nodes import NodeProcess


PUT_BACK_WITHIN = 10.0  # seconds; later a pause is another's, or it never comes


class CoordinationTrouble(DiskTrouble):
    """Coordination that forgets."""

    @property
    def coordination(self) -> "Coordination":
        return self.cluster.coordination

    def session_lost(self) -> None:
        process = self._running()
        if process is not None:
            self._note(f"the session of {process.who} ends")
            process.session.expire()

    def coordination_lost(self) -> None:
        """All that coordination holds is gone, while it was away or not: the nodes put it back."""
        self._coordination_turned({}, "coordination's data is lost")

    def coordination_old(self) -> None:
        """An older copy of coordination's data takes its place, which every replica that it names knows better than."""
        cells = self.coordination.cells()
        self._note("coordination's data is copied")
        what, operator = "coordination's data is turned back", self.cluster.operator
        if self.rng.random() < 0.4:  # so that the copy asks for something to be done
            operator.ask_for(operator.spec.replicas + self.rng.choice([-1, 1]))
        self.loop.after(self.rng.uniform(0.5, 4.0), lambda: self._coordination_turned(cells, what))

    def _coordination_turned(self, cells: Mapping[str, Cell], what: str) -> None:
        away, coordination = self.rng.choice([0.0, 0.0, 0.5, 3.0]), self.coordination
        if coordination.down or self.over:
            return
        if away:
            coordination.down = True
            self._reach_changed(better=False)
            self._note(f"coordination away for {away:g} s")

        def turn() -> None:
            self._turn(cells, what)
            if away:
                self._note("coordination is back", Mark.HEAL)
                coordination.down = False
                self._reach_changed(better=True)

        self._for(away, turn)

    def _turn(self, cells: Mapping[str, Cell], what: str) -> bool:
        """Other data takes the place of coordination's, if the nodes can put that right; whether it does."""
        if self.coordination.pending or not all(self._survives(p, cells) for p in self.cluster.partitions):
            return False
        self._note(what)
        self.coordination.turn_back(cells)
        if self.rng.random() < 0.5:
            self.cluster.operator.dies(0)  # whoever begins now has seen nothing newer
        return True

    def known_by_one(self) -> None:
        """A leader takes a dead follower out; when no other replica knows yet, coordination's data is lost and the leader goes down."""
        rng, partition = self.rng, self.rng.choice(self.cluster.partitions)
        state, processes = partition.state, partition.processes()
        leader = next((p for p in processes if p.run == state.leader), None)
        followers = [p for p in processes if p is not leader and p.run.replica in state.in_sync]
        if leader is None or not followers or partition.lost:
            return
        heals = [self._cut_coordination(pod, 8.0) for pod in partition.pods if pod != leader.pod]
        victim = rng.choice(followers)
        self._note(f"kill {victim.who}")
        self._end(victim.machine, silently=False)
        self.cluster.plan_start(victim.machine, rng.uniform(2.5, 5.0))

        def look() -> None:
            acted = partition.checker.acted
            if self.over or not leader.alive:
                return
            if acted is None or acted.age == state.age:
                self.loop.after(0.05, look)
                return
            if self._turn(
                {}, f"coordination's data is lost; {leader.who}, which alone knows the newest state, is killed"
            ):
                self._end(leader.machine, silently=False)
                self.cluster.plan_start(leader.machine, rng.uniform(3.0, 6.0))
            for heal in heals:
                heal()

        look()

    def _survives(self, partition: "Partition", cells: Mapping[str, Cell]) -> bool:
        """Whether the nodes can put a partition's state back: who was in sync answers, and nobody believes an older copy."""
        disks, state, acted = partition.checker.disks, partition.state, partition.checker.acted
        broken = any(p.disk_failed or p.core.strange for p in partition.processes())
        asked = {*state.in_sync, *(acted.in_sync if acted is not None else ())}
        if (
            partition.lost
            or broken
            or not self.cluster.operator.born
            or not all(self._answers(partition, r) for r in asked)
        ):
            return False
        cell = cells.get(partition_cell(partition.number))
        if cell is None:
            return state.leader is not None
        copy = codec.decode_partition(cell.data)
        known = [disks[r].meta.state for r in copy.in_sync]
        better = self.cluster.operator.knows_better(partition.number, copy)
        return copy == state or (better and all(k is not None and k.age > copy.age for k in known))

    def lost_twice(self) -> None:
        """A replica is paused as it puts back what was lost; others have done it, and all is lost once more, when it goes on."""
        rng, partition = self.rng, self.rng.choice(self.cluster.partitions)
        leader = partition.state.leader
        late = [p for p in partition.processes() if p.serving and p.run != leader and not p.actor.paused]
        if self.over or leader is None or not late or not self._turn({}, "coordination's data is lost"):
            return
        process, until = rng.choice(late), self.loop.now + PUT_BACK_WITHIN
        self._pause_when_it_has_heard(process)

        def look() -> None:
            if self.over or not process.alive or self.loop.now > until:
                return
            acted = partition.checker.acted
            if not process.actor.paused or acted is None or acted.age != partition.state.age or partition.lost:
                self.loop.after(0.05, look)
            elif self._turn({}, "coordination's data is lost again"):
                self.loop.after(rng.random(), self._resume, process)
            else:
                self.loop.after(0.2, look)

        self.loop.after(rng.uniform(1.0, 4.0), look)

    def _pause_when_it_has_heard(self, process: "NodeProcess") -> None:
        """The moment at which it has heard from all that they see a loss, and asks coordination next."""
        host = process.host
        ask = host.ask_others

        async def asked() -> list[Answer]:
            answers = await ask()
            here = [a.testimony for a in answers if a.partition == process.partition.number]
            if not self.over and process.alive and here and all(w.lost for w in here):
                host.ask_others = ask  # type: ignore[method-assign]
                self.loop.after(0.0, self._pause, process)
            return answers

        host.ask_others = asked  # type: ignore[method-assign]

    def _pause(self, process: "NodeProcess") -> None:
        if self.over or not process.alive or process.actor.paused:
            return
        self._note(f"pause {process.who}, which is about to put the state back", pauses=process.who)
        process.pause()
        self._for(PUT_BACK_WITHIN, lambda: self._resume(process))

    def _resume(self, process: "NodeProcess") -> None:
        if process.actor.paused:
            process.resume()
            self.cluster.show_away()
