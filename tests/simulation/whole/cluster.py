"""A whole cluster: build it, trouble it, heal it, judge it. `simulate` has the shape of `tests.simulation.cluster`'s."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from types import SimpleNamespace
from typing import Any

import structlog

from kvcommon.numbers import Timing
from kvcommon.slotmap import SlotMap
from kvcommon.slots import slot_of
from kvcoord import codec
from kvcoord.cells import Cell, partition_cell
from kvcoord.contract import PartitionState, ReplicaId, RunId
from kvnode.core.types import Role
from kvoperator.names import Names
from kvoperator.spec import KVClusterSpec
from kvstore.options import Durability
from tests.simulation.checks import Checker
from tests.simulation.disk import Payloads
from tests.simulation.final_log import check_log
from tests.simulation.record import SimulationError
from tests.simulation.report import Report
from tests.simulation.requests import request_at
from tests.simulation.schedule import Asked, Options
from tests.simulation.sooner import sooner
from tests.simulation.timeline import Mark, describe_state
from tests.simulation.whole.client import Client
from tests.simulation.whole.clients import DirectClient, Newcomers, RouterClient
from tests.simulation.whole.coordination import Coordination
from tests.simulation.whole.disk_faults import COPY_UNDER_WAY, SLOW_FOR_LONG
from tests.simulation.whole.faults import LEFT_ALONE, Faults
from tests.simulation.whole.machines import Machine
from tests.simulation.whole.nodes import NodeProcess
from tests.simulation.whole.operators import Operator
from tests.simulation.whole.redis import NodeRedisClient, ReadsBack, RouterRedisClient
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


class Partition:
    """One partition, and what the checks of the core's simulation ask of a cluster."""

    compacts = True

    def __init__(self, cluster: "WholeCluster", number: int, pods: tuple[str, ...], min_in_sync: int) -> None:
        self.cluster, self.number = cluster, number
        self.timing = cluster.timing
        self.payloads = Payloads()
        self.places: dict[int, int] = {}  # the index of each version
        self.ended: dict[RunId, float] = {}
        self.words: set[str] = set()
        self.checker: Checker = Checker(cluster.loop, self)
        self.machines = {pod: Machine(cluster, self, pod) for pod in pods}
        self.taken_away: dict[str, Machine] = {}
        first = tuple(ReplicaId(pod, f"{pod}-i1") for pod in pods)
        self.state = PartitionState(epoch=0, leader=None, in_sync=first, replicas=pods, min_in_sync=min_in_sync)
        for pod in pods:
            self.machines[pod].shadow(f"{pod}-i1")

    @property
    def coordination(self) -> "Partition":
        return self

    @property
    def pods(self) -> list[str]:
        """All that there are, also those that are yet to belong to it, or do no more."""
        return list(self.machines)

    def add(self, pod: str) -> Machine:
        """A new machine, or one that was taken away before."""
        machine = self.taken_away.pop(pod, None) or Machine(self.cluster, self, pod)
        machine.leaves = False
        self.machines[pod] = machine
        return machine

    def take_away(self, machine: Machine, *, keep_disk: bool) -> None:
        """A machine that nobody counts on any more."""
        self.taken_away[machine.pod] = self.machines.pop(machine.pod)
        if not keep_disk:
            machine.files = type(machine.files)()
            self.checker.taken_away(machine.pod)

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

    @property
    def sound(self) -> bool:
        """Whether every disk that is counted on is good, or no other copy will be taken."""
        return self.cluster.faults.over or not any(self.checker.disks[r].destroyed for r in self.state.in_sync)

    def changed(self, there: PartitionState | None, after: PartitionState) -> None:
        """Coordination has another state than what was there."""
        before, self.state = self.state, after
        self.cluster.loop.note(
            "coordination", f"p{self.number} now {describe_state(after)}", Mark.COORDINATION, epoch=after.epoch
        )
        if after.replicas != before.replicas:
            self.cluster.loop.note(
                "coordination", f"p{self.number} is of {', '.join(after.replicas)}", Mark.COORDINATION
            )
        if there is not None and there.generation == after.generation:
            self.checker.state_changed(COORDINATION, before, after)
        elif there is not None or after.serial > 1:
            self.checker.state_rebuilt(COORDINATION, after)

    def whole(self) -> bool:
        """Someone leads and serves, and all who are wanted, and nobody else, are there and in sync."""
        state, spec, wanted = self.state, self.cluster.operator.spec, set(self.cluster.operator.wanted(self.number))
        leader = self.machines[state.leader.replica.pod].process if state.leader else None
        return (
            leader is not None
            and leader.serving
            and leader.run == state.leader
            and leader.core.role is Role.LEADER
            and leader.core.accepting
            and leader.clock.now() < leader.core.lease_until
            and {r.pod for r in state.in_sync} == set(state.replicas) == set(self.pods) == wanted
            and state.min_in_sync == spec.min_in_sync
            and not self.lost
        )


class WholeCluster:
    """All parts of a run."""

    memory_share = MEMORY_SHARE

    def __init__(self, options: Options) -> None:
        self.options = options
        self.loop = VirtualLoop(options.seed, verbose=options.verbose)
        self.faults = Faults(self)
        rng = self.loop.stream("cluster")
        self.timing = Timing()
        self.cluster_id = "6d1b3c52-0000-4000-8000-000000000001"
        self.window = rng.choice([2000, 10_000, 1 << 20])
        self.segment_bytes = rng.choice([1000, 20_000, 64 << 20])
        if self.faults.has_rare(COPY_UNDER_WAY):
            self.window, self.segment_bytes = 500, 1000
        self.durability: Durability = (
            "memory" if self.loop.stream("durability").random() < self.memory_share else "fsync"
        )
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
        self.writers: dict[bytes, int] = {}  # which client writes under an id of kvclient's, or of its own
        self.load = True
        self.coordination = Coordination(self, calm="coordination" in options.calm)
        self.names = Names("c", "sim")
        self._counts: Counter[str] = Counter()
        self.operator = Operator(self, KVClusterSpec(partitions=PARTITIONS, replicas=options.replicas))
        least = self.operator.spec.min_in_sync
        self.partitions = [Partition(self, n, self.operator.wanted(n), least) for n in range(PARTITIONS)]
        self.unreached: dict[str, int] = {}  # pods that don't reach coordination, with the number of reasons
        self.map = SlotMap.even(PARTITIONS)
        self.keys = contended_keys(options.keys, self.partition_of, range(PARTITIONS), "k")
        self.groups = _groups(self.partition_of)
        self.routers = [Router(self, f"router{i}") for i in range(2)]
        self.clients: list[Client] = [self._kind(i)(self, i) for i in range(options.clients)]
        if self.faults.has_rare(COPY_UNDER_WAY):
            self.clients.append(Newcomers(self, len(self.clients)))

    def _kind(self, number: int) -> type[Client]:
        kind = CLIENTS[number % len(CLIENTS)]
        return ReadsBack if kind is RouterRedisClient and self.faults.has_rare(LEFT_ALONE) else kind

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
        found = self._counts + self.loop.net.counts
        for partition in self.partitions:
            found.update(partition.checker.counts)
        return dict(found)

    def count(self, what: str) -> None:
        """What happened once more."""
        self._counts[what] += 1

    @property
    def machines(self) -> dict[str, Machine]:
        """All that there are, by pod."""
        return {pod: m for p in self.partitions for pod, m in p.machines.items()}

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
            cut_off = bool(self.unreached.get(router.name)) or router.actor.paused
            router.session.away = self.coordination.down or cut_off
        self.operator.session.away = self.coordination.down

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
        self.operator.start()
        for machine in self.machines.values():
            self.plan_start(machine, rng.random() * 0.5)
        for router in self.routers:
            router.start()
        for client in self.clients:
            client.start()
        await self._trouble()
        self.faults.stop()
        took = await self._heal()
        await self._read_all()
        self._judge()
        return took

    async def _trouble(self) -> None:
        """What the seed has in store."""
        rng = self.loop.stream("cluster")
        if rng.random() < 0.8:
            await asyncio.sleep(rng.uniform(0.5, 2.0))
        self.faults.start()
        await asyncio.sleep(self.options.seconds)

    async def _heal(self) -> float:
        """Invariant 24, in each partition."""
        began, served = self.loop.now, self._served()
        for client in self.clients:
            client.think = max(client.think, 0.1)
        while self.loop.now < began + HEALED_WITHIN:
            await asyncio.sleep(0.25)
            enough = self._served() > served + 5 or self.options.requests is not None
            if enough and not self.operator.kubernetes.at_work and all(p.whole() for p in self.partitions):
                self.load = False
                self.loop.note("cluster", "is whole again; nobody asks any more")
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
        reader, other = DirectClient(self, len(self.clients)), NodeRedisClient(self, len(self.clients) + 1)
        self.loop.note("cluster", f"{reader.who} and {other.who} read every key, then logs and histories are judged")
        await reader.actor.spawn(reader.read(self.keys), "reader")
        await other.actor.spawn(other.read(), "reader")

    def _judge(self) -> None:
        for partition in self.partitions:
            leader = partition.state.leader
            assert leader is not None
            process = partition.machines[leader.replica.pod].process
            assert process is not None
            check_log(partition.checker, process.disk, f"partition {partition.number}: ", self._request_of)
            for other in partition.processes():
                if other.disk.doubtful:
                    self.loop.fail(other.who, 27, "goes on, although a sync or a read of its disk failed")
            self._compare_states(partition)
        self._judge_history()

    def _request_of(self, client_id: bytes, at: float) -> str:
        client = self.writers.get(client_id)
        return "a request" if client is None else request_at(client, at, self.asked, self.history)

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


def simulate(cluster: WholeCluster) -> Report:
    """One whole run."""
    loop, failure, took = cluster.loop, None, 0.0
    rare = cluster.faults.has_rare
    with _logs_in(loop), sooner(slow_disks=rare(SLOW_FOR_LONG), slow_copies=rare(COPY_UNDER_WAY)):
        try:
            took = loop.run_until_complete(cluster.run())
            failure = loop.failure
        except SimulationError as e:
            failure = e.failure
        except Exception as e:
            failure = loop.raised("world", "the run", e)
        finally:
            loop.end(cluster.actors)
    return Report(
        cluster.options,
        failure,
        tuple(loop.timeline.lines),
        tuple(cluster.faults.struck),
        tuple(cluster.asked),
        len(cluster.history) + len(cluster.redis_history.commands),
        sum(c.served for c in cluster.clients),
        cluster.counts() | cluster.faults.counted() | cluster.asked_of(),
        took,
    )
