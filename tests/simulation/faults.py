"""Trouble: which kinds a seed knows, when they strike, and how they end.

Each seed has its own choice of kinds ("swarm testing", Groce et al., 2012): some runs have only pauses, some have
everything. Half of the faults aim at the leader or at
who is about to be. No fault destroys the last good copy: that is data loss by design.
"""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from tests.simulation.schedule import Struck
from tests.simulation.timeline import Mark

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster
    from tests.simulation.node import Machine


class Faults:
    """Strikes until it is told to stop, then heals everything."""

    def __init__(self, cluster: "Cluster") -> None:
        self.cluster = cluster
        self.loop = cluster.loop
        rng = self.loop.stream("faults")
        self.kinds: dict[str, Callable[[], None]] = {
            "kill": self.kill,
            "power_off": self.power_off,
            "all_down": self.all_down,
            "pause": self.pause,
            "isolate": self.isolate,
            "one_way": self.one_way,
            "slow_way": self.slow_way,
            "break": self.break_connections,
            "coordination_down": self.coordination_down,
            "coordination_cut": self.coordination_cut,
            "coordination_slow": self.coordination_slow,
            "maybe": self.maybe,
            "slow_disk": self.slow_disk,
            "failed_disk": self.failed_disk,
            "empty_disk": self.empty_disk,
            "sigterm": self.sigterm,
            "hand_over": self.hand_over,
        }
        names = list(self.kinds)
        self.chosen = rng.sample(names, rng.choice([2, 4, 6, len(names)]))
        self.often = rng.choice([0.3, 0.7, 1.5])
        self.word_share = rng.choice([0.0, 0.5, 1.0])
        self.over = False
        self.heals: list[Callable[[], None]] = []
        self.rng = rng  # of the fault that strikes
        self.struck: list[Struck] = []

    def start(self) -> None:
        """Strike at the times that the seed gives, from now on for as long as the options say."""
        kept = self.cluster.options.faults
        self.loop.note("faults", f"one in {self.often} s of {', '.join(sorted(self.chosen))}")
        rng = self.loop.stream("faults")
        at, number = rng.expovariate(1 / self.often), 0
        while at < self.cluster.options.seconds:
            kind = rng.choice(self.chosen)
            if kept is None or number in kept:
                self.loop.after(at, self._strike, number, kind)
            at += rng.expovariate(1 / self.often)
            number += 1

    def _strike(self, number: int, kind: str) -> None:
        if not self.over:
            self.rng = Random(f"{self.loop.seed} fault {number}")
            self.struck.append(Struck(number, self.loop.now, kind))
            self.cluster.checker.count(f"fault {kind}")
            self.kinds[kind]()

    def _note(self, what: str, mark: Mark = Mark.FAULT) -> None:
        self.loop.note("faults", what, mark)

    def stop(self) -> None:
        """End every fault; everything that is down comes up."""
        self.over = True
        self._note("all faults end; what is down comes up", Mark.HEAL)
        for heal in self.heals:
            heal()
        self.heals.clear()
        for machine in self.cluster.machines.values():
            machine.slow_disk = 0.0
            process = machine.process
            if process is not None and process.leaving_since is None and process.core.failure:
                process.end(silently=False)  # as the node's own liveness probe would
                machine.disk.kill(machine.rng)
            if machine.process is None:
                self.cluster.plan_start(machine, machine.rng.random())

    def _for(self, seconds: float, heal: Callable[[], None]) -> None:
        """End a fault after a time, or at the end of all, whichever is first."""
        done = False

        def once() -> None:
            nonlocal done
            if not done:
                done = True
                heal()

        self.heals.append(once)
        self.loop.after(seconds, once)

    def _length(self) -> float:
        """Shorter than a heartbeat, about a lease, or much longer."""
        return self.rng.choice([0.1, 0.7, 1.5, 2.5, 5.0]) * self.rng.uniform(0.5, 1.5)

    def _victim(self) -> "Machine":
        rng, leader = self.rng, self.cluster.coordination.state.leader
        claimants = [p for p in self.cluster.processes() if p.core.claim is not None]
        if claimants and rng.random() < 0.3:
            return rng.choice(claimants).machine
        if leader is not None and rng.random() < 0.5:
            return self.cluster.machines[leader.replica.pod]
        return self.cluster.machines[rng.choice(self.cluster.pods)]

    # --- processes and machines --------------------------------------------------------------------------------------

    def _end(self, machine: "Machine", *, silently: bool) -> str | None:
        """End the process on this machine, if there is one; give its run."""
        process = machine.process
        if process is None:
            return None
        process.end(silently=silently)
        if self.rng.random() < self.word_share:
            self.loop.after(
                self.rng.uniform(0.05, 1.0), self.cluster.coordination.report_death, machine.pod, process.run.run
            )
        return process.run.run

    def kill(self) -> None:
        """The process dies, the page cache stays."""
        machine = self._victim()
        run = self._end(machine, silently=False)
        if run is not None:
            machine.disk.kill(self.rng)
            self._note(f"kill {run}; its log ends at {machine.disk.end.index}")
            self.cluster.plan_start(machine, self._length())

    def power_off(self) -> None:
        """The machine dies, with everything that was not synced."""
        self._power_off(self._victim(), self._length())

    def _power_off(self, machine: "Machine", back: float) -> None:
        run = self._end(machine, silently=True)
        if run is not None:
            machine.disk.power_off(self.rng)
            self._note(f"power off {machine.pod} with {run}; its log ends at {machine.disk.end.index}")
            self.cluster.plan_start(machine, back)

    def all_down(self) -> None:
        """All at once, back in any order."""
        rng = self.rng
        power = rng.random() < 0.5
        self._note("all down")
        for machine in self.cluster.machines.values():
            if power:
                self._power_off(machine, rng.random() * 4)
            elif self._end(machine, silently=False) is not None:
                machine.disk.kill(rng)
                self.cluster.plan_start(machine, rng.random() * 4)

    def pause(self) -> None:
        process = self._victim().process
        if process is None or process.paused:
            return
        length = self._length()
        self._note(f"pause {process.who} for {length:.2f} s")
        process.pause()

        def resume() -> None:
            if process.alive:
                process.note("goes on after its pause", Mark.HEAL)
            process.resume()

        self._for(length, resume)

    def sigterm(self) -> None:
        process = self._victim().process
        if process is not None:
            self._note(f"terminate {process.who}")
            process.leave()  # whoever ends so is started again

    def hand_over(self) -> None:
        process = self._victim().process
        if process is not None:
            self._note(f"ask {process.who} to hand over")
            process.hand_over()

    # --- network -----------------------------------------------------------------------------------------------------

    def _cut(self, ways: list[tuple[str, str]], length: float) -> None:
        network = self.cluster.network
        for source, target in ways:
            network.cut(source, target)

        def heal() -> None:
            self._note(", ".join(f"{a} -> {b}" for a, b in ways), Mark.HEAL)
            for source, target in ways:
                network.heal(source, target)

        self._for(length, heal)

    def isolate(self) -> None:
        """Both ways between one and all, or one, of the others."""
        pod, rng = self._victim().pod, self.rng
        others = [p for p in self.cluster.pods if p != pod]
        if rng.random() < 0.5:
            others = [rng.choice(others)]
        length = self._length()
        self._note(f"{pod} and {','.join(others)} cut off for {length:.2f} s")
        self._cut([(pod, o) for o in others] + [(o, pod) for o in others], length)
        if rng.random() < 0.3:
            self._cut_coordination(pod, length)

    def one_way(self) -> None:
        pod, rng = self._victim().pod, self.rng
        other = rng.choice([p for p in self.cluster.pods if p != pod])
        way = (pod, other) if rng.random() < 0.5 else (other, pod)
        length = self._length()
        self._note(f"{way[0]} -> {way[1]} cut for {length:.2f} s")
        self._cut([way], length)

    def slow_way(self) -> None:
        """What one says to another comes late, in order."""
        pod, rng = self._victim().pod, self.rng
        other = rng.choice([p for p in self.cluster.pods if p != pod])
        way = (pod, other) if rng.random() < 0.5 else (other, pod)
        seconds = rng.choice([0.2, 0.7, 1.5])
        network = self.cluster.network
        network.late[way] = seconds
        self._note(f"{way[0]} -> {way[1]} takes {seconds} s")
        self._for(self._length(), lambda: network.late.update({way: 0.0}))

    def break_connections(self) -> None:
        self._note("connections break")
        for connection in list(self.cluster.network.connections):
            if self.rng.random() < 0.5:
                connection.break_()

    # --- coordination ------------------------------------------------------------------------------------------------

    def coordination_down(self) -> None:
        coordination, length = self.cluster.coordination, self._length()
        if coordination.down:
            return
        coordination.down = True
        self._note(f"coordination away for {length:.2f} s")

        def heal() -> None:
            self._note("coordination is back", Mark.HEAL)
            coordination.down = False
            coordination.back()

        self._for(length, heal)

    def coordination_cut(self) -> None:
        self._cut_coordination(self._victim().pod, self._length())

    def _cut_coordination(self, pod: str, length: float) -> None:
        coordination = self.cluster.coordination
        coordination.cut[pod] = coordination.cut.get(pod, 0) + 1
        self._note(f"{pod} does not reach coordination for {length:.2f} s")

        def heal() -> None:
            coordination.cut[pod] -= 1
            coordination.back()

        self._for(length, heal)

    def coordination_slow(self) -> None:
        coordination = self.cluster.coordination
        coordination.slow = self.rng.choice([0.1, 1.0, 3.0])
        self._note(f"coordination takes up to {coordination.slow} s")
        self._for(self._length(), lambda: setattr(coordination, "slow", 0.0))

    def maybe(self) -> None:
        coordination = self.cluster.coordination
        coordination.maybe = 0.5
        self._note("half of all changes of state get no answer")
        self._for(self._length(), lambda: setattr(coordination, "maybe", coordination.usual_maybe))

    # --- disks -------------------------------------------------------------------------------------------------------

    def slow_disk(self) -> None:
        machine = self._victim()
        machine.slow_disk = self.rng.choice([0.05, 0.5, 3.0])
        self._note(f"syncs of {machine.pod} take up to {machine.slow_disk} s")
        self._for(self._length(), lambda: setattr(machine, "slow_disk", 0.0))

    def failed_disk(self) -> None:
        """A write fails, where others are in sync."""
        machine = self._victim()
        process = machine.process
        if process is not None and not process.disk_failed and self._others_are_good(machine):
            self._note(f"a write of {process.who} fails")
            process.fail_disk()

    def empty_disk(self) -> None:
        """The volume is lost; the pod comes back with an empty one."""
        machine = self._victim()
        if self._others_are_good(machine):
            run = self._end(machine, silently=True)
            self._note(f"disk of {machine.pod} is lost (with {run}), an empty one takes its place")
            machine.disk.destroyed = True
            machine.new_disk()
            self.cluster.plan_start(machine, self._length())

    def _others_are_good(self, machine: "Machine") -> bool:
        """Whether some other replica is in sync for good: no change is on its way, none lost its disk before."""
        state = self.cluster.coordination.state
        checker = self.cluster.checker
        if self.cluster.coordination.pending or any(checker.disks[r].destroyed for r in state.in_sync):
            return False
        if any(m.process is not None and m.process.disk_failed for m in self.cluster.machines.values()):
            return False
        return any(r.pod != machine.pod for r in state.in_sync)
