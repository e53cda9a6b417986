"""Trouble for a whole cluster: processes and connections; the rest in `coordination_faults`, `disk_faults`, `tests.simulation.trouble`."""

from contextlib import suppress
from typing import TYPE_CHECKING

from kvnode.core.events import HandOverRequested
from tests.simulation.whole.coordination_faults import CoordinationTrouble
from tests.simulation.whole.disk_faults import COPY_UNDER_WAY, SLOW_FOR_LONG, UNREADABLE_TO_UPKEEP
from tests.simulation.whole.nodes import PIPELINE, REDIS, REPLICATION
from tests.support.faulty_files import CrashError

if TYPE_CHECKING:
    from tests.simulation.whole.cluster import WholeCluster
    from tests.simulation.whole.machines import Machine
    from tests.simulation.whole.nodes import NodeProcess
    from tests.simulation.whole.world import Net


LEFT_ALONE = "left_alone"  # a rare kind, in whose seeds Redis's client at the routers reads right behind each write


class Faults(CoordinationTrouble):
    """All kinds of a cluster."""

    def __init__(self, cluster: "WholeCluster") -> None:
        self.cluster = cluster
        kinds = {
            "kill": self.kill,
            "power_off": self.power_off,
            "all_down": self.all_down,
            "pause": self.pause,
            "sigterm": self.sigterm,
            "hand_over": self.hand_over,
            "add_replica": self.add_replica,
            "remove_replica": self.remove_replica,
            "roll": self.roll,
            "operator_dies": self.operator_dies,
            "isolate": self.isolate,
            "one_way": self.one_way,
            "slow_way": self.slow_way,
            "break": self.break_connections,
            "unruly": self.unruly,
            "lost_answers": self.lost_answers,
            "coordination_down": self.coordination_down,
            "coordination_cut": self.coordination_cut,
            "coordination_slow": self.coordination_slow,
            "session_lost": self.session_lost,
            "coordination_lost": self.coordination_lost,
            "coordination_old": self.coordination_old,
            "maybe": self.maybe,
            "clock_rate": self.clock_rate,
            "slow_disk": self.slow_disk,
            "failed_sync": self.failed_sync,
            "failed_write": self.failed_write,
            "failed_read": self.failed_read,
            "full_disk": self.full_disk,
            "flipped_bit": self.flipped_bit,
            "empty_disk": self.empty_disk,
            "old_disk": self.old_disk,
        }
        rare = {
            SLOW_FOR_LONG: self.slow_for_long,
            "known_by_one": self.known_by_one,
            UNREADABLE_TO_UPKEEP: self.unreadable_to_upkeep,
            COPY_UNDER_WAY: self.copy_under_way,
            LEFT_ALONE: self.left_alone,
            "lost_twice": self.lost_twice,
            "router": self.router,
        }
        super().__init__(cluster.loop, cluster.options, kinds, rare)

    @property
    def network(self) -> "Net":
        return self.cluster.loop.net

    @property
    def unreached(self) -> dict[str, int]:
        return self.cluster.unreached

    def _reach_changed(self, *, better: bool) -> None:
        self.cluster.show_away()

    def _others(self, machine: "Machine") -> list[str]:
        """Whom a machine talks with: its partition's others, routers, clients."""
        peers = [p for p in machine.partition.pods if p != machine.pod]
        return [*peers, *(r.name for r in self.cluster.routers), *(c.actor.host for c in self.cluster.clients)]

    def _heal_machines(self) -> None:
        self.cluster.operator.kubernetes.call_off()
        for machine in self.cluster.machines.values():
            machine.slow_disk = 0.0
            machine.down_for_good = 0
            machine.files.heal()
            if machine.process is not None:
                machine.process.upkeep_fails = False
            if machine.process is None:
                self.cluster.plan_start(machine, machine.rng.random())

    def _victim(self) -> "Machine":
        rng = self.rng
        partition = rng.choice(self.cluster.partitions)
        claimants = [p for p in partition.processes() if p.core.claim is not None]
        if claimants and rng.random() < 0.3:
            return rng.choice(claimants).machine
        leader = partition.state.leader
        if leader is not None and rng.random() < 0.5:
            return partition.machines[leader.replica.pod]
        return partition.machines[rng.choice(partition.pods)]

    def _running(self) -> "NodeProcess | None":
        process = self._victim().process
        return process if process is not None and process.serving else None

    # --- processes and machines --------------------------------------------------------------------------------------

    def _end(self, machine: "Machine", *, silently: bool) -> str:
        """End the process on this machine; its name, or "" when there is none."""
        process = machine.process
        if process is None:
            return ""
        self._cut_short(process)
        process.end(silently=silently)
        machine.files.stop()
        if process.serving and self.rng.random() < self.word_share:
            self.loop.after(self.rng.uniform(0.05, 1.0), self.cluster.operator.told, process)
        return process.who

    def _cut_short(self, process: "NodeProcess") -> None:
        """A write that is under way when the process dies has got somewhere."""
        if process.machine.files.troubled:
            return
        if process.serving and process.host.store.end != process.host.store.durable and self.rng.random() < 0.5:
            process.machine.files.crash_in = self.rng.randint(1, 5)
            with suppress(Exception):
                process.host.store.flush()
        elif process.serving and self.rng.random() < 0.3:
            process.machine.files.crash_in = self.rng.randint(1, 12)
            with suppress(Exception, CrashError):
                process.host.store.maintain()

    def kill(self) -> None:
        """The process dies, the page cache stays."""
        machine = self._victim()
        who = self._end(machine, silently=False)
        if who:
            self._note(f"kill {who}")
            self.cluster.plan_start(machine, self._length())

    def power_off(self) -> None:
        """The machine dies, with everything that was not synced."""
        self._power_off(self._victim(), self._length())

    def _power_off(self, machine: "Machine", back: float) -> None:
        if self.cluster.durability == "memory":
            self._power_off_memory(machine, back)
            return
        who = self._end(machine, silently=True)
        if who:
            machine.power_off(self.rng)
            self._note(f"power off {machine.pod} with {who}")
            self.cluster.plan_start(machine, back)

    def _power_off_memory(self, machine: "Machine", back: float) -> None:
        """What it acknowledged is lost, which another in-sync machine must survive: else only its process dies."""
        process = machine.process
        silently = process is not None and process.serving and self._others_are_good(machine)
        who = self._end(machine, silently=silently)
        if process is None:
            return
        if silently:
            process.disk.destroyed = True
            machine.power_off(self.rng)
            machine.partition.checker.count("page caches lost")
        self._note(f"{'power off' if silently else 'kill'} {machine.pod} with {who}")
        self.cluster.plan_start(machine, back)

    def all_down(self) -> None:
        """All of a partition at once, back in any order."""
        partition = self.rng.choice(self.cluster.partitions)
        power = self.rng.random() < 0.5
        self._note(f"all of partition {partition.number} down")
        for machine in list(partition.machines.values()):
            if power:
                self._power_off(machine, self.rng.random() * 4)
            elif self._end(machine, silently=False):
                self.cluster.plan_start(machine, self.rng.random() * 4)

    def pause(self) -> None:
        process = self._running()
        if process is not None and not process.actor.paused:
            length = self._length()
            self._note(f"pause {process.who} for {length:.2f} s", pauses=process.who)
            process.pause()
            self._for(length, process.resume)
            self.heals.append(self.cluster.show_away)

    def router(self) -> None:
        """A router is killed, or paused, or does not reach coordination."""
        router, length = self.rng.choice(self.cluster.routers), self._length()
        if not router.actor.alive or router.actor.paused:
            return
        match self.rng.choice(["kill", "pause", "cut"]):
            case "kill":
                self._note(f"kill {router.name}")
                router.kill()
                self._for(length, router.start_again)
            case "pause":
                self._note(f"pause {router.name} for {length:.2f} s")
                router.pause()
                self._for(length, router.resume)
            case _:
                self._cut_coordination(router.name, length)

    def sigterm(self) -> None:
        process = self._running()
        if process is not None:
            self._note(f"terminate {process.who}")
            self.loop.call_soon(process.leave, context=process.actor.context)

    def hand_over(self) -> None:
        process = self._running()
        if process is not None:
            self._note(f"ask {process.who} to hand over")
            self.loop.call_soon(process.host.step, HandOverRequested(), context=process.actor.context)

    # --- the operator ------------------------------------------------------------------------------------------------

    def add_replica(self) -> None:
        """Each partition is to have one more."""
        self.cluster.operator.ask_for(self.cluster.operator.spec.replicas + 1)

    def remove_replica(self) -> None:
        """Each partition is to have one less: in sync or not, be it the leader."""
        self.cluster.operator.ask_for(self.cluster.operator.spec.replicas - 1)

    def roll(self) -> None:
        """Each pod is to be made anew, one at a time, the leader last."""
        self._note("pods of a new revision are wanted")
        self.cluster.operator.kubernetes.revision += 1

    def operator_dies(self) -> None:
        """Now, or between two steps of its work."""
        steps = self.rng.choice([0, 1, 2, 3, 5])
        self._note(f"the operator is to end {f'{steps} steps on' if steps else 'now'}")
        self.cluster.operator.dies(steps)

    # --- network ----------------------------------------------------------------------------------------------------

    def break_connections(self) -> None:
        self._note("connections break")
        self.loop.net.break_some(self.rng)

    def left_alone(self) -> None:
        """A leader does not hear its followers until it has taken them out: it refuses writes, its reads go on, until they are back."""
        rng = self.rng

        def look() -> None:
            whole = [p for p in self.cluster.partitions if p.whole()]
            if self.over:
                return
            if not whole:
                self.loop.after(0.1, look)
                return
            partition = rng.choice(whole)
            leader = partition.state.leader
            assert leader is not None
            pod, length = leader.replica.pod, self.cluster.timing.follower_timeout + rng.uniform(2.0, 4.0)
            self._note(f"{pod} does not hear its followers for {length:.2f} s")
            self._cut([(other, pod) for other in partition.pods if other != pod], length)

        look()

    def unruly(self) -> None:
        """Single frames between replicas are lost, doubled, or overtaken, on connections that go on."""
        net = self.network
        net.unruly[REPLICATION] = self.rng.choice([0.02, 0.1, 0.4])
        self._note(f"{net.unruly[REPLICATION]:.0%} of frames between replicas are lost, doubled or out of order")
        self._for(self._length(), net.unruly.clear)

    def lost_answers(self) -> None:
        """What was asked for is done; then connections break instead of the answer."""
        net, share = self.network, self.rng.choice([0.02, 0.1, 0.3])
        net.answers_lost = dict.fromkeys((PIPELINE, REDIS), share)
        self._note(f"{share:.0%} of answers to clients are lost with their connections")
        self._for(self._length(), net.answers_lost.clear)
