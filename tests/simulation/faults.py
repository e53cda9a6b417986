"""Trouble for one partition's core: kills, pauses, hand-overs, failed and lost disks; the rest is `tests.simulation.trouble`."""

from typing import TYPE_CHECKING

from tests.simulation.timeline import Mark
from tests.simulation.trouble import Trouble

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster
    from tests.simulation.coordination import Coordination
    from tests.simulation.network import Network
    from tests.simulation.node import Machine


class Faults(Trouble["Machine"]):
    """All kinds of a partition."""

    def __init__(self, cluster: "Cluster") -> None:
        self.cluster = cluster
        kinds = {
            "kill": self.kill,
            "power_off": self.power_off,
            "all_down": self.all_down,
            "pause": self.pause,
            "isolate": self.isolate,
            "one_way": self.one_way,
            "slow_way": self.slow_way,
            "break": self.break_connections,
            "unruly": self.unruly,
            "coordination_down": self.coordination_down,
            "coordination_cut": self.coordination_cut,
            "coordination_slow": self.coordination_slow,
            "maybe": self.maybe,
            "clock_rate": self.clock_rate,
            "slow_disk": self.slow_disk,
            "failed_disk": self.failed_disk,
            "empty_disk": self.empty_disk,
            "old_disk": self.old_disk,
            "sigterm": self.sigterm,
            "hand_over": self.hand_over,
            "add_replica": self.add_replica,
            "remove_replica": self.remove_replica,
            "operator_dies": self.operator_dies,
        }
        rare = {
            "old_follower": self.old_follower,
            "old_leader": self.old_leader,
            "claim_in_doubt": self.claim_in_doubt,
        }
        super().__init__(cluster.loop, cluster.options, kinds, rare)

    @property
    def network(self) -> "Network":
        return self.cluster.network

    @property
    def coordination(self) -> "Coordination":
        return self.cluster.coordination

    @property
    def unreached(self) -> dict[str, int]:
        return self.coordination.cut

    def _reach_changed(self, *, better: bool) -> None:
        if better:
            self.coordination.back()

    def _others(self, machine: "Machine") -> list[str]:
        return [pod for pod in self.cluster.pods if pod != machine.pod]

    def _heal_machines(self) -> None:
        for machine in self.cluster.machines.values():
            machine.slow_disk = 0.0
            process = machine.process
            if process is not None:
                process.when_asking = None
            if process is not None and process.leaving_since is None and process.core.failure:
                process.end(silently=False)  # as the node's own liveness probe would
                machine.disk.kill(machine.rng)
            if machine.process is None:
                self.cluster.plan_start(machine, machine.rng.random())

    def _victim(self) -> "Machine":
        rng, leader = self.rng, self.cluster.coordination.state.leader
        claimants = [p for p in self.cluster.processes() if p.core.claim is not None]
        if claimants and rng.random() < 0.3:
            return rng.choice(claimants).machine
        if leader is not None and rng.random() < 0.5 and leader.replica.pod in self.cluster.machines:
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
        for machine in list(self.cluster.machines.values()):
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
        self._note(f"pause {process.who} for {length:.2f} s", pauses=process.who)
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

    def claim_in_doubt(self) -> None:
        """A follower in sync, cut off from its leader, claims and dies asking; it is soon back, and the claim lands later.

        The leader does not reach coordination meanwhile.
        """
        state, rng = self.coordination.state, self.rng
        processes = self.cluster.processes()
        leader = next((p for p in processes if p.run == state.leader), None)
        followers = [p for p in processes if p is not leader and p.run.replica in state.in_sync]
        if leader is None or not followers:
            return
        process, pod = rng.choice(followers), leader.pod
        machine = process.machine
        heal = self._cut([(pod, machine.pod), (machine.pod, pod)], 6.0)
        self._note(f"{pod} and {machine.pod} cut off until {process.who} claims")
        self._cut_coordination(pod, rng.uniform(4.0, 9.0))

        def die() -> None:
            heal()
            self._end(machine, silently=False)
            machine.disk.kill(rng)
            self._note(f"kill {process.who}, which has asked for a change")
            self.cluster.plan_start(machine, rng.uniform(0.05, 0.5))

        process.when_asking = die

    def add_replica(self) -> None:
        """A pod more: a new one, or one that was taken away before."""
        wanted = self.cluster.operator.wanted
        if len(wanted) < self.options.replicas + 2:
            spare = [f"p{i}" for i in range(self.options.replicas + 2) if f"p{i}" not in wanted]
            self.cluster.operator.want([*wanted, self.rng.choice(spare)])

    def remove_replica(self) -> None:
        """A pod less: any, or the leader's."""
        wanted, pod = self.cluster.operator.wanted, self._victim().pod
        if len(wanted) > 2 and pod in wanted:
            self.cluster.operator.want([p for p in wanted if p != pod])

    def operator_dies(self) -> None:
        """Now, or right after it has asked for a change."""
        asking = self.rng.random() < 0.7
        self._note(f"the operator is to end {'when it next asks for a change' if asking else 'now'}")
        self.cluster.operator.dies(asking=asking)

    def break_connections(self) -> None:
        self._note("connections break")
        for connection in list(self.cluster.network.connections):
            if self.rng.random() < 0.5:
                connection.break_()

    def unruly(self) -> None:
        """Single frames are lost, doubled, or overtaken, on connections that go on."""
        network = self.network
        network.unruly = self.rng.choice([0.02, 0.1, 0.4])
        self._note(f"{network.unruly:.0%} of messages are lost, doubled or out of order")
        self._for(self._length(), lambda: setattr(network, "unruly", 0.0))

    # --- disks -------------------------------------------------------------------------------------------------------

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

    def old_disk(self) -> None:
        """A copy of a leader's disk from now is put in after it has led a later epoch: in sync, and named as leader."""
        state = self.cluster.coordination.state
        machine = self.cluster.machines[state.leader.replica.pod] if state.leader is not None else self._victim()
        process, disk, rng = machine.process, machine.disk, self.rng
        if process is None or process.run != state.leader:
            return
        copy = disk.copy()
        self._note(f"the disk of {machine.pod}, which leads, is copied")
        self._end(machine, silently=False)
        disk.kill(rng)
        self.cluster.plan_start(machine, 0.05)  # it claims at once, if all goes well

        def put_in() -> None:
            now = self.cluster.coordination.state
            leads = now.leader is not None and now.leader.replica == disk.replica and now.epoch > state.epoch
            if self.over or machine.disk is not disk or not leads or not self._others_are_good(machine):
                return
            self._end(machine, silently=False)
            self._note(f"{machine.pod}, leader in epoch {now.epoch}, comes back with its disk of epoch {state.epoch}")
            self.cluster.checker.put_back(disk, copy)
            self.cluster.plan_start(machine, rng.choice([0.0, 0.5, 1.5]))
            if rng.random() < 0.5:  # it alone is up for longer than the promises of all
                for other in self.cluster.machines.values():
                    if other is not machine and self._end(other, silently=False):
                        other.disk.kill(rng)
                        self.cluster.plan_start(other, rng.uniform(6.0, 9.0))

        self.loop.after(rng.uniform(0.5, 3.0), put_in)

    def old_follower(self) -> None:
        """A copy of an in-sync follower's disk from now is put in later, while its leader lives, who knows what it acknowledged."""
        state = self.cluster.coordination.state
        followers = [r.pod for r in state.in_sync if state.leader is not None and r != state.leader.replica]
        if followers:
            self._turn_back(self.cluster.machines[self.rng.choice(followers)], led=0)

    def old_leader(self) -> None:
        """A copy of a leader's disk from now is put in later in the same epoch: it meets another one in sync, which has more."""
        state = self.cluster.coordination.state
        if state.leader is not None:
            self._turn_back(self.cluster.machines[state.leader.replica.pod], led=state.epoch)

    def _turn_back(self, machine: "Machine", led: int) -> None:
        """Put a copy of this machine's disk in after a while, if it is in sync then, and leads the same epoch as now, or none (0)."""
        disk, copy, rng = machine.disk, machine.disk.copy(), self.rng
        if machine.process is None:
            return
        self._note(f"the disk of {machine.pod} is copied")

        def put_in() -> None:
            state = self.cluster.coordination.state
            if state.leader is None or self.cluster.running(state.leader.replica.pod) is None:
                return
            leads = state.epoch if state.leader.replica == disk.replica else 0
            older = not copy.log or copy.log[-1].last < self.cluster.checker.top
            in_place = machine.disk is disk and disk.replica in state.in_sync
            if self.over or leads != led or not older or not in_place or not self._others_are_good(machine):
                return
            self._end(machine, silently=False)
            end = copy.log[-1].last if copy.log else 0
            self._note(f"{machine.pod}, in sync, comes back with an old copy of its disk, whose log ends at {end}")
            self.cluster.checker.put_back(disk, copy)
            disk.unmet = True
            self.cluster.plan_start(machine, rng.choice([0.0, 0.5, 1.5]))

        self.loop.after(rng.uniform(0.3, 2.0), put_in)

    def _others_are_good(self, machine: "Machine") -> bool:
        """Whether some other replica is in sync for good: no change is on its way, none lost its disk before."""
        state = self.cluster.coordination.state
        checker = self.cluster.checker
        if self.cluster.coordination.pending or any(checker.disks[r].destroyed for r in state.in_sync):
            return False
        if any(m.process is not None and m.process.disk_failed for m in self.cluster.machines.values()):
            return False
        return any(r.pod != machine.pod for r in state.in_sync)
