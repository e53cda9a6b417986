"""One simulated partition: build it, trouble it, heal it, judge it."""

from kvcommon.numbers import Timing, default_min_in_sync
from kvcoord.contract import PartitionState, RunId
from kvnode.core.types import Role
from tests.simulation.checks import Checker
from tests.simulation.clients import Client
from tests.simulation.coordination import Coordination
from tests.simulation.disk import Payloads
from tests.simulation.faults import Faults
from tests.simulation.final_log import check_log
from tests.simulation.loop import Loop
from tests.simulation.membership import Operator
from tests.simulation.network import Network
from tests.simulation.node import Machine, Process
from tests.simulation.record import SimulationError
from tests.simulation.report import Report
from tests.simulation.requests import request_at
from tests.simulation.schedule import Asked, Options
from tests.simulation.service import Call
from tests.simulation.sooner import sooner
from tests.simulation.timeline import at, describe_state
from tests.support.history import History, Kind, lost_writes, version_violations
from tests.support.linearizability import check, format_violation

HEALED_WITHIN = 30.0  # seconds of virtual time after the last fault


class Cluster:
    """All parts of a run."""

    compacts = False  # whether logs may be compacted

    def __init__(self, options: Options) -> None:
        self.options = options
        self.loop = Loop(options.seed, verbose=options.verbose)
        rng = self.loop.stream("cluster")
        calm = options.calm
        self.timing = Timing()
        self.window = rng.choice([2000, 10_000, 1 << 20])
        self.sync_base = rng.choice([0.0005, 0.003, 0.02])
        if "disks" in calm:
            self.sync_base = 0.001
        self.asked: list[Asked] = []
        self.payloads = Payloads()
        pods = [f"p{i}" for i in range(options.replicas)]
        self.keys = [b"k%d" % i for i in range(options.keys)]
        self.history = History()
        self.load = True
        self.ended: dict[RunId, float] = {}
        self.checker: Checker = Checker(self.loop, self)
        self.machines = {pod: Machine(self, pod) for pod in pods}
        self.taken_away: dict[str, Machine] = {}
        for machine in self.machines.values():
            self.checker.known_disk(machine.disk)
        born = PartitionState(
            epoch=0,
            leader=None,
            in_sync=tuple(m.disk.replica for m in self.machines.values()),
            replicas=tuple(pods),
            min_in_sync=default_min_in_sync(options.replicas),
        )
        self.coordination = Coordination(self.loop, born, self.checker, calm="coordination" in calm)
        self.network = Network(self.loop, self.running, calm="network" in calm)
        self.operator = Operator(self)
        self.faults = Faults(self)
        self.clients = [Client(self, i) for i in range(options.clients)]

    @property
    def pods(self) -> list[str]:
        """All that there are, also those that are yet to belong to the partition, or do no more."""
        return list(self.machines)

    @property
    def sound(self) -> bool:
        """Whether every disk that is counted on is good, or no other copy will be taken."""
        lost = any(self.checker.disks[r].destroyed for r in self.coordination.state.in_sync)
        return self.faults.over or not (lost or any(p.disk_failed for p in self.processes()))

    def grow(self, pod: str) -> None:
        """Another pod: on a new machine, or with the disk that it left behind."""
        machine = self.taken_away.pop(pod, None)
        if machine is None:
            machine = Machine(self, pod)
            self.checker.known_disk(machine.disk)
        machine.leaves = False
        self.machines[pod] = machine
        self.plan_start(machine, machine.rng.random() * 0.5)

    def shrink(self, pod: str, *, keep_disk: bool) -> bool:
        """One pod less, whether it is gone: to be called until it is; its disk may be deleted, unless it is to be kept."""
        machine = self.machines[pod]
        if not machine.leaves and self.coordination.may_name(pod):
            self.loop.fail("operator", 26, f"takes {pod} away, while a change that names it may yet be done")
        machine.leaves = True
        if machine.process is not None:
            machine.process.leave()
            return False
        self.taken_away[pod] = self.machines.pop(pod)
        if not keep_disk and machine.rng.random() < 0.5:
            self.checker.taken_away(pod)
            machine.new_disk()
        self.checker.count("pods taken away")
        return True

    def running(self, pod: str) -> Process | None:
        return self.machines[pod].process if pod in self.machines else None

    def processes(self) -> list[Process]:
        return [m.process for m in self.machines.values() if m.process is not None]

    def plan_start(self, machine: Machine, delay: float) -> None:
        self.loop.after(delay, machine.start)

    # --- a run -------------------------------------------------------------------------------------------------------

    def run(self) -> float:
        """Everything; gives the seconds that healing took. Raises SimulationError."""
        rng, loop = self.loop.stream("cluster"), self.loop
        for machine in self.machines.values():
            self.plan_start(machine, rng.random() * 0.5)
        self.operator.start()
        for client in self.clients:
            client.start()
        if rng.random() < 0.8:
            loop.run(rng.uniform(0.5, 2.0))
        self.faults.start()
        loop.run(loop.now + self.options.seconds)
        self.faults.stop()
        took = self._heal()
        self._read_all()
        self._judge()
        return took

    def _heal(self) -> float:
        """Invariant 24: someone leads and serves, and all are in sync again."""
        began = self.loop.now
        served = self._served()
        for client in self.clients:
            client.think = max(client.think, 0.1)  # a follower catches up if it is faster than the load
        while self.loop.now < began + HEALED_WITHIN:
            self.loop.run(self.loop.now + 0.25)
            if self._whole() and (self._served() > served + 5 or self.options.requests is not None):
                self.load = False
                self.loop.note("cluster", "is whole again; nobody asks any more")
                self.loop.run(self.loop.now + 6.0)  # every client's last request ends
                return self.loop.now - began - 6.0
        state = self.coordination.state
        cores = "; ".join(
            f"{p.who} {p.core.role.value} epoch {p.core.epoch} end {at(p.core.end)} commit {p.core.commit} in sync "
            f"{p.core.in_sync} serving {p.clock.now() < p.core.lease_until}"
            for p in self.processes()
        )
        what = f"not whole {HEALED_WITHIN} s after the last fault: {describe_state(state)}; {cores}"
        raise SimulationError(self.loop.broken("cluster", 24, what))

    def _served(self) -> int:
        return sum(c.served for c in self.clients)

    def _whole(self) -> bool:
        state = self.coordination.state
        leader = self.running(state.leader.replica.pod) if state.leader else None
        return (
            leader is not None
            and leader.run == state.leader
            and leader.core.role is Role.LEADER
            and leader.core.accepting
            and leader.clock.now() < leader.core.lease_until
            and {r.pod for r in state.in_sync} == set(self.pods)
            and self.operator.done
            and all(self.checker.disks[r] is self.machines[r.pod].disk for r in state.in_sync)
        )

    def _read_all(self) -> None:
        reader = Client(self, len(self.clients))
        self.loop.note("cluster", f"{reader.who} reads every key, then logs and histories are judged")
        for key in self.keys:
            reader.ask((Call(Kind.GET, key),), reader.sequence + 1)
            while not reader.idle:
                self.loop.run(self.loop.now + 0.1)

    def _request_of(self, client_id: bytes, at: float) -> str:
        return request_at(int.from_bytes(client_id, "big"), at, self.asked, self.history)

    def _judge(self) -> None:
        leader = self.coordination.state.leader
        assert leader is not None
        check_log(self.checker, self.machines[leader.replica.pod].disk, "", self._request_of)
        operations = self.history.operations
        final = {o.key: o.outcome.version or 0 for o in operations if o.client == len(self.clients) and o.outcome.value}
        problems = [format_violation(v) for v in check(operations)]
        problems += version_violations(operations)
        problems += lost_writes([o for o in operations if o.client < len(self.clients)], final)
        if problems:
            self.loop.fail("history", 15, "\n".join(problems))


def simulate(options: Options) -> Report:
    """One whole run."""
    cluster = Cluster(options)
    failure, took = None, 0.0
    try:
        with sooner():
            took = cluster.run()
    except SimulationError as e:
        failure = e.failure
    except Exception as e:
        failure = cluster.loop.raised("world", "the run", e)
    return Report(
        options,
        failure,
        tuple(cluster.loop.timeline.lines),
        tuple(cluster.faults.struck),
        tuple(cluster.asked),
        len(cluster.history),
        sum(c.served for c in cluster.clients),
        cluster.checker.counts | cluster.faults.counted(),
        took,
    )
