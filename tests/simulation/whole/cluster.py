"""A whole cluster: build it, trouble it, heal it, judge it. `simulate` has the shape of `tests.simulation.cluster`'s."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from types import SimpleNamespace
from typing import Any

import structlog

from kvcommon.numbers import Timing, default_min_in_sync
from kvcommon.slotmap import SlotMap
from kvcommon.slots import slot_of
from kvcoord import codec
from kvcoord.cells import Cell, partition_cell
from kvcoord.contract import ClusterIdentity, Death, Lost, PartitionState, ReplicaId, RunId, Won
from kvcoord.memory import Call, Fate, MemoryCoordination, MemoryStore
from kvnode.core import leading
from kvnode.core.types import Role
from kvstore.options import Durability
from tests.simulation.checks import Checker
from tests.simulation.disk import Payloads
from tests.simulation.record import SimulationError
from tests.simulation.report import Report
from tests.simulation.schedule import Asked, Options
from tests.simulation.timeline import Mark, describe_state
from tests.simulation.whole.client import Client
from tests.simulation.whole.clients import DirectClient, RouterClient
from tests.simulation.whole.faults import Faults
from tests.simulation.whole.machines import Machine
from tests.simulation.whole.nodes import NodeProcess
from tests.simulation.whole.redis import NodeRedisClient, RouterRedisClient
from tests.simulation.whole.routers import Router
from tests.simulation.whole.world import ACTOR, Actor, VirtualLoop
from tests.support.history import History, lost_writes, version_violations
from tests.support.linearizability import check, format_violation
from tests.support.redis_history import RedisHistory, check_groups
from tests.support.sessions import StaleRead, went_back
from tests.support.workload import contended_keys

CLIENTS: tuple[type[Client], ...] = (DirectClient, NodeRedisClient, RouterClient, DirectClient, RouterRedisClient)
HEALED_WITHIN = 60.0  # seconds of virtual time after the last fault
PARTITIONS = 2
MEMORY_SHARE = 0.2  # of clusters, in which a write waits for the page cache alone
COORDINATION = SimpleNamespace(who="coordination")


class Coordination(MemoryStore):
    """kvcoord's store in memory; who reaches it, how fast, and which answers are lost is the seed's."""

    def __init__(self, cluster: "WholeCluster", *, calm: bool) -> None:
        super().__init__(hook=self._fate, context=cluster.loop._outside)
        self.cluster = cluster
        self.loop = cluster.loop
        self.usual_maybe = 0.0 if calm else 0.02
        self.maybe = self.usual_maybe
        self.base = 0.001 if calm else self.loop.stream("coordination").choice([0.001, 0.005, 0.02])
        self.slow = 0.0
        self.down = False
        self.pending = 0  # changes that may yet be done

    def session(self, name: str = "") -> MemoryCoordination:
        session = super().session(name)
        self.loop.after(0.0, self.cluster.show_away)
        return session

    def _delay(self, session: str) -> float:
        rng = self.loop.stream(f"coordination {session}")
        return rng.uniform(0.2, 2.0) * self.base + rng.random() * self.slow

    def _fate(self, call: Call) -> Fate:
        rng = self.loop.stream(f"coordination {call.session}")
        delay = self._delay(call.session)
        if call.operation == "watch":
            return Fate(delay=delay)
        fate = Fate(delay=delay, answer_delay=self._delay(call.session), patience=1.0)
        if call.writes and rng.random() < self.maybe:
            late, done = rng.choice([0.05, 0.5, 3.0]) * rng.random(), rng.random() < 0.5
            fate = Fate(delay=late, applied=done, answered=False, patience=rng.uniform(0.1, 1.0))
        if call.writes and fate.applied:
            self.pending += 1
            self.loop.after(fate.delay + 0.001, self._settled)
        return fate

    def _settled(self) -> None:
        self.pending -= 1

    def create(self, cell: str, data: bytes) -> Won | Lost:
        outcome = super().create(cell, data)
        if isinstance(outcome, Won):
            self.cluster.changed(cell, None, data)
        return outcome

    def compare_and_set(self, cell: str, expected_version: int, data: bytes) -> Won | Lost:
        before = self.get(cell)
        outcome = super().compare_and_set(cell, expected_version, data)
        if isinstance(outcome, Won):
            self.cluster.changed(cell, before, data)
        return outcome

    def turn_back(self, cells: Mapping[str, Cell]) -> None:
        """Other data takes the place of what is there; {}: it is lost. No session outlives it, nothing that was asked before is done."""
        assert not self.pending
        self.put_back(cells)
        for session in self.sessions:
            session.expire()


class Partition:
    """One partition, and what the checks of the core's simulation ask of a cluster."""

    compacts = True

    def __init__(self, cluster: "WholeCluster", number: int, pods: list[str]) -> None:
        self.cluster, self.number, self.pods = cluster, number, pods
        self.timing = cluster.timing
        self.payloads = Payloads()
        self.places: dict[int, int] = {}  # the index of each version
        self.ended: dict[RunId, float] = {}
        self.words: set[str] = set()
        self.checker: Checker = Checker(cluster.loop, self)
        self.machines = {pod: Machine(cluster, self, pod) for pod in pods}
        self.state = PartitionState(
            epoch=0,
            leader=None,
            in_sync=tuple(ReplicaId(pod, f"{pod}-i1") for pod in pods),
            replicas=tuple(pods),
            min_in_sync=default_min_in_sync(len(pods)),
        )
        for pod in pods:
            self.machines[pod].shadow(f"{pod}-i1")

    @property
    def coordination(self) -> "Partition":
        return self

    def processes(self) -> list[NodeProcess]:
        return [m.process for m in self.machines.values() if m.process is not None and m.process.serving]

    def there(self) -> PartitionState | None:
        """What coordination has, which is older than the true state, or nothing, while its data is lost."""
        cell = self.cluster.coordination.get(partition_cell(self.number))
        return None if cell is None else codec.decode_partition(cell.data)

    @property
    def lost(self) -> bool:
        """Whether coordination's data is lost or turned back, and not put back yet."""
        return self.there() != self.state

    def changed(self, there: PartitionState | None, after: PartitionState) -> None:
        """Coordination has another state than what was there."""
        before, self.state = self.state, after
        self.cluster.loop.note(
            "coordination", f"p{self.number} now {describe_state(after)}", Mark.COORDINATION, epoch=after.epoch
        )
        if there is not None and there.generation == after.generation:
            self.checker.state_changed(COORDINATION, before, after)
        elif there is not None or after.serial > 1:
            self.checker.state_rebuilt(COORDINATION, after)

    def whole(self) -> bool:
        """Someone leads and serves, and all are in sync."""
        state = self.state
        leader = self.machines[state.leader.replica.pod].process if state.leader else None
        return (
            leader is not None
            and leader.serving
            and leader.run == state.leader
            and leader.core.role is Role.LEADER
            and leader.core.accepting
            and leader.clock.now() < leader.core.lease_until
            and {r.pod for r in state.in_sync} == set(self.pods)
            and not self.lost
        )


class WholeCluster:
    """All parts of a run."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.loop = VirtualLoop(options.seed, verbose=options.verbose)
        rng = self.loop.stream("cluster")
        self.timing = Timing()
        self.cluster_id = "6d1b3c52-0000-4000-8000-000000000001"
        self.window = rng.choice([2000, 10_000, 1 << 20])
        self.segment_bytes = rng.choice([1000, 20_000, 64 << 20])
        self.durability: Durability = "memory" if self.loop.stream("durability").random() < MEMORY_SHARE else "fsync"
        net = self.loop.net
        if "network" not in options.calm:
            net.base = rng.choice([0.0003, 0.001, 0.005])
            net.slow_share = rng.choice([0.0, 0.0, 0.002, 0.02])
            net.slow = rng.choice([0.1, 0.5, 2.5])
        self.actors: list[Actor] = []
        self.history = History()
        self.stale_reads: list[StaleRead] = []
        self.redis_history = RedisHistory()
        self.asked: list[Asked] = []
        self.load = True
        self.coordination = Coordination(self, calm="coordination" in options.calm)
        self.partitions = [
            Partition(self, n, [f"c{n}-{i}" for i in range(options.replicas)]) for n in range(PARTITIONS)
        ]
        self.machines = {pod: m for p in self.partitions for pod, m in p.machines.items()}
        self.unreached: dict[str, int] = {}  # pods that don't reach coordination, with the number of reasons
        self.map = SlotMap.even(PARTITIONS)
        self.keys = contended_keys(options.keys, self.partition_of, range(PARTITIONS), "k")
        self.groups = _groups(self.partition_of)
        self.routers = [Router(self, f"router{i}") for i in range(2)]
        self.clients: list[Client] = [CLIENTS[i % len(CLIENTS)](self, i) for i in range(options.clients)]
        self.faults = Faults(self)

    def partition_of(self, key: bytes) -> int:
        return self.map.owners[slot_of(key)]

    def asked_of(self) -> dict[str, int]:
        """What clients asked for, beside plain operations."""
        return {
            "stale reads": len(self.stale_reads),
            "redis commands": len(self.redis_history.commands),
            "redis commands untold": sum(c.returned is None for c in self.redis_history.commands),
        }

    def counts(self) -> dict[str, int]:
        """What happened how often, in all partitions."""
        found: dict[str, int] = {}
        for partition in self.partitions:
            for what, number in partition.checker.counts.items():
                found[what] = found.get(what, 0) + number
        return found

    # --- coordination ------------------------------------------------------------------------------------------------

    def changed(self, cell: str, before: Cell | None, data: bytes) -> None:
        for partition in self.partitions:
            if cell == partition_cell(partition.number):
                there = None if before is None else codec.decode_partition(before.data)
                partition.changed(there, codec.decode_partition(data))

    def show_away(self) -> None:
        """Who reaches coordination now."""
        for machine in self.machines.values():
            process = machine.process
            if process is not None:
                away = self.coordination.down or bool(self.unreached.get(machine.pod)) or process.actor.paused
                process.session.away = away
        for router in self.routers:
            router.session.away = self.coordination.down

    def report_death(self, process: NodeProcess) -> None:
        """The kubelet's word; true ones only."""
        process.partition.words.add(process.who)
        death = Death(process.pod, process.who, f"container-{process.who}", process.partition.state.epoch)
        self.loop.note("kubelet", f"{process.pod} run {process.who} is terminated", Mark.FAULT)
        cell = self.coordination.get("deaths")
        known = {} if cell is None else codec.decode_deaths(cell.data)
        data = codec.encode_deaths({**known, death.pod: death})
        if cell is None:
            self.coordination.create("deaths", data)
        else:
            self.coordination.compare_and_set("deaths", cell.version, data)

    async def _birth(self) -> None:
        """What the operator does at a cluster's birth."""
        store = self.coordination
        store.create(
            "identity", codec.encode_identity(ClusterIdentity(self.cluster_id, "c", PARTITIONS, self.options.replicas))
        )
        store.create("map", codec.encode_map(self.map))
        for partition in self.partitions:
            store.create(partition_cell(partition.number), codec.encode_partition(partition.state))

    # --- a run -------------------------------------------------------------------------------------------------------

    def plan_start(self, machine: Machine, delay: float) -> None:
        self.loop.after(delay, machine.start)

    def ended_by_itself(self, process: NodeProcess) -> None:
        """It was asked to end, and did; it is started again."""
        process.end(silently=False)
        process.machine.files.stop()
        self.plan_start(process.machine, process.machine.rng.choice([0.1, 1.0, 4.0]))

    async def run(self) -> float:
        """Everything; gives the seconds that healing took. Raises SimulationError."""
        rng = self.loop.stream("cluster")
        await self._birth()
        for machine in self.machines.values():
            self.plan_start(machine, rng.random() * 0.5)
        for router in self.routers:
            router.start()
        for client in self.clients:
            client.start()
        if rng.random() < 0.8:
            await asyncio.sleep(rng.uniform(0.5, 2.0))
        self.faults.start()
        await asyncio.sleep(self.options.seconds)
        self.faults.stop()
        took = await self._heal()
        await self._read_all()
        self._judge()
        return took

    async def _heal(self) -> float:
        """Invariant 24, in each partition."""
        began, served = self.loop.now, self._served()
        for client in self.clients:
            client.think = max(client.think, 0.1)
        while self.loop.now < began + HEALED_WITHIN:
            await asyncio.sleep(0.25)
            enough = self._served() > served + 5 or self.options.requests is not None
            if enough and all(p.whole() for p in self.partitions):
                self.load = False
                await asyncio.sleep(6.0)
                return self.loop.now - began - 6.0
        states = "; ".join(f"p{p.number} whole {p.whole()}: {describe_state(p.state)}" for p in self.partitions)
        cores = "; ".join(
            f"{p.who} {p.core.role.value} epoch {p.core.epoch} end {p.core.end.index} commit {p.core.commit} "
            f"in sync {p.core.in_sync} {p.core.failure}"
            for partition in self.partitions
            for p in partition.processes()
        )
        what = f"not whole {HEALED_WITHIN} s after the last fault: {states}; {cores}"
        raise SimulationError(self.loop.broken("cluster", 24, what))

    def _served(self) -> int:
        return sum(c.served for c in self.clients)

    async def _read_all(self) -> None:
        reader = DirectClient(self, len(self.clients))
        await reader.actor.spawn(reader.read(self.keys), "reader")
        other = NodeRedisClient(self, len(self.clients) + 1)
        await other.actor.spawn(other.read(), "reader")

    def _judge(self) -> None:
        for partition in self.partitions:
            leader = partition.state.leader
            assert leader is not None
            process = partition.machines[leader.replica.pod].process
            assert process is not None
            partition.checker.check_log(process.disk)
            self._compare_states(partition)
        self._judge_history()

    def _compare_states(self, partition: Partition) -> None:
        """Invariants 11, 12 and 13: every replica shows the fold of all that is committed, compacted or not."""
        state = partition.checker.committed_state()
        for process in partition.processes():
            if process.core.commit < partition.checker.top or process.disk.destroyed:
                continue
            for key in [*self.keys, *chain(*self.groups.values())]:
                found, wanted = process.host.store.get(key), state.get(key)
                if found != wanted:
                    self.loop.fail(process.who, 12, f"shows {found} for {key!r}, committed is {wanted}")

    def _judge_stale_reads(self) -> None:
        """Invariant 17 as clients see it: a state within its bound, and never one that a session had left behind."""
        problems = went_back(self.stale_reads, self.history.operations)
        stale = {id(read.operation) for read in self.stale_reads}
        fresh = [o for o in self.history.operations if id(o) not in stale]
        if check(self.history.operations) and not check(fresh):
            problems += [format_violation(v) for v in check(self.history.operations)]
        if problems:
            self.loop.fail("history", 17, "\n".join(problems))

    def _judge_history(self) -> None:
        self._judge_stale_reads()
        operations = self.history.operations
        last = len(self.clients)
        final = {o.key: o.outcome.version or 0 for o in operations if o.client == last and o.outcome.value}
        problems = [format_violation(v) for v in check(operations)]
        problems += version_violations(operations)
        problems += check_groups(self.redis_history.commands, self.groups)
        problems += lost_writes([o for o in operations if o.client < last], final)
        if problems:
            self.loop.fail("history", 15, "\n".join(problems))


def _groups(partition_of: Callable[[bytes], int]) -> dict[bytes, tuple[bytes, ...]]:
    """One group of keys, of one slot, in each partition."""
    tags = contended_keys(PARTITIONS, lambda tag: partition_of(b"{%s}" % tag), range(PARTITIONS), "g")
    return {tag: tuple(b"{%s}%s" % (tag, name) for name in (b"a", b"b", b"n")) for tag in tags}


@contextmanager
def _words_sooner() -> Iterator[None]:
    """How far every replica is, which deletes wait for before they are purged, is told each second."""
    before = leading.PASSED_EVERY
    leading.PASSED_EVERY = 1.0
    try:
        yield
    finally:
        leading.PASSED_EVERY = before


@contextmanager
def _logs_in(loop: VirtualLoop) -> Iterator[None]:
    """What the shipped code logs becomes detail of the timeline."""

    def note(_: Any, level: str, event: Mapping[str, Any]) -> Any:
        if loop.verbose and not loop.closing:
            actor = ACTOR.get()
            rest = ", ".join(f"{k} {v}" for k, v in event.items() if k != "event")
            loop.note(actor.who if actor else "world", f"logs {level}: {event.get('event')}: {rest}", detail=True)
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[note])
    try:
        yield
    finally:
        structlog.configure(**before)


def simulate(options: Options) -> Report:
    """One whole run."""
    cluster = WholeCluster(options)
    loop, failure, took = cluster.loop, None, 0.0
    with _logs_in(loop), _words_sooner():
        try:
            took = loop.run_until_complete(cluster.run())
            failure = loop.failure
        except SimulationError as e:
            failure = e.failure
        finally:
            loop.end(cluster.actors)
    return Report(
        options,
        failure,
        tuple(loop.timeline.lines),
        tuple(cluster.faults.struck),
        tuple(cluster.asked),
        len(cluster.history) + len(cluster.redis_history.commands),
        sum(c.served for c in cluster.clients),
        cluster.counts() | cluster.faults.counted() | cluster.asked_of(),
        took,
    )
