"""One life of the operator's process: it may end between any two of its steps, and what it knew with it."""

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from kvcoord.contract import CoordinationUnavailableError, Lost, PartitionState
from kvoperator.actions import ReportDeath
from kvoperator.apply import Applier
from kvoperator.link import Link
from kvoperator.plans.birth import all_there, births
from kvoperator.plans.deaths import deaths_due
from kvoperator.plans.membership import Memory, next_state, removable
from kvoperator.plans.rolling import replacements
from kvoperator.plans.rows import rows
from kvoperator.snapshot import ClusterView, CoordinationView, Snapshot
from kvoperator.status import KVClusterStatus, PartitionRow
from tests.simulation.timeline import Mark
from tests.simulation.whole.world import Actor

if TYPE_CHECKING:
    from tests.simulation.whole.cluster import Partition
    from tests.simulation.whole.operators import Operator

NOW = datetime(2026, 11, 28, tzinfo=UTC)  # nothing that is decided here asks for the time


class OperatorProcess:
    """Looks at everything now and then, and makes one step after the other."""

    def __init__(self, operator: "Operator", who: str) -> None:
        self.operator, self.cluster, self.loop = operator, operator.cluster, operator.loop
        self.kubernetes = operator.kubernetes
        self.actor = Actor(self.loop, who, "operator")
        self.session = self.cluster.coordination.session(who)
        self.steps_left: int | None = None  # until it dies
        self._asking = 0  # of what is under way, counted as pending
        self._dying = asyncio.Event()
        self._link = Link(lambda _: self.session, self._dying.set)
        self._applier = Applier(cast("Any", self.kubernetes), lambda: self.session, lambda: NOW)
        self._memory: dict[int, Memory] = {}
        self.cluster.actors.append(self.actor)

    def start(self) -> None:
        """Begin to look."""
        self._dying.set()
        self.actor.spawn(self._rounds(), "rounds")
        self.actor.spawn(self._pass_on_deaths(), "deaths")

    def told(self) -> None:
        """The kubelet has said something."""
        self.loop.call_soon(self._dying.set, context=self.actor.context)

    def end(self) -> None:
        """SIGKILL."""
        self.actor.kill(silently=False)
        self.session.crash()
        self.cluster.coordination.pending -= self._asking

    async def _step(self) -> None:
        """Between two of its steps: here it may die."""
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left <= 0:
                self.operator.ends()
                await asyncio.sleep(0)  # for ever

    # --- its work ----------------------------------------------------------------------------------------------------

    async def _rounds(self) -> None:
        await self._link.open("memory")
        while True:
            await asyncio.sleep(self.operator.rng.uniform(0.1, 0.6))
            try:
                await self._round()
            except CoordinationUnavailableError as e:
                self.loop.note("operator", f"coordination can't be asked: {e}", detail=True)

    async def _round(self) -> None:
        spec = self.operator.spec
        coordination = await self._link.read(range(spec.partitions))
        snapshot = self._snapshot(coordination)
        actions = births(snapshot, spec, self.cluster.cluster_id)
        actions += replacements(snapshot, spec, frozenset())
        for action in actions:
            await self._step()
            await self._applier.carry_out(snapshot.cluster, action)
        await self._step()
        self._write_status(snapshot)
        for partition in self.cluster.partitions:
            await self._resize(partition)

    def _snapshot(self, coordination: CoordinationView) -> Snapshot:
        return Snapshot(
            cluster=ClusterView(self.cluster.names, "uid", 1, self.operator.spec, "", self.operator.status),
            now=NOW,
            fresh_id="",
            default_image="",
            statefulsets=self.kubernetes.statefulsets(),
            pods=self.kubernetes.views(),
            coordination=coordination,
        )

    def _write_status(self, snapshot: Snapshot) -> None:
        """What the next life will know."""
        spec, before, there = self.operator.spec, self.operator.status, snapshot.coordination
        assert there is not None
        self.operator.status = KVClusterStatus(
            clusterId=before.clusterId,
            born=before.born or all_there(there, spec),
            partitions=rows(snapshot, spec),
        )

    def _saw(self, number: int, state: PartitionState) -> Memory:
        known, kept = self._memory.get(number), (self.operator.status.row(number) or PartitionRow(partition=number)).age
        if known is None:
            known = Memory.begin(state, kept)
        self._memory[number] = known = known.saw(state, kept)
        return known

    async def _resize(self, partition: "Partition") -> None:
        """One step towards the replicas that are wanted, and the pods that go with it."""
        coordination = self.cluster.coordination
        coordination.pending += 1  # a session's end would end this, too, so that nothing is asked upon what was lost
        self._asking += 1
        try:
            await self._resize_one(partition)
        finally:
            self._asking -= 1
            coordination.pending -= 1

    async def _resize_one(self, partition: "Partition") -> None:
        number = partition.number
        session = self.session.session
        found = await self.session.read_partition(number)
        if found is None:
            return
        state, wanted = found.value, self.operator.wanted(number)
        if not partition.sound:  # a disk that is as good as lost takes a copy: the operator takes no other meanwhile
            wanted = tuple(dict.fromkeys((*wanted, *state.replicas)))
        memory = self._saw(number, state)
        for pod in wanted:
            if pod not in partition.machines and memory.trusts(state):
                await self._step()
                self.kubernetes.grow(partition, pod)
        for pod in partition.pods:
            goes = pod not in wanted and removable(state, pod, memory)
            if goes or partition.machines[pod].leaves:  # what has begun ends before the pod is made anew
                await self._step()
                self.kubernetes.shrink(partition, pod, keep_disk=pod in wanted)
        step = next_state(state, wanted, partition.pods, self.operator.spec.min_in_sync, memory)
        if step is not None:
            await self._step()
            self._memory[number] = memory.asks(state)
            await self._ask(partition, found.version, step, session)
            self._memory[number] = self._memory[number].answered()
            await self._step()

    async def _ask(self, partition: "Partition", version: int, step: PartitionState, session: int) -> None:
        what = f"p{partition.number} be {', '.join(step.replicas)}, {step.min_in_sync} in sync at least"
        self.loop.note("operator", f"asks that {what}", Mark.OPERATOR, epoch=step.epoch)
        partition.checker.asks_membership(step)
        if self.steps_left == 1:  # while it waits for the answer
            self.loop.after(self.operator.rng.random() * 0.01, self.operator.ends, self)
        outcome = await self.session.compare_and_set_partition(partition.number, version, step, session=session)
        if isinstance(outcome, Lost):
            self.loop.note("operator", "has lost to another change", Mark.OPERATOR)
            self.cluster.count("memberships lost")

    async def _pass_on_deaths(self) -> None:
        """As `kvoperator.worker` has it."""
        while True:
            await self._dying.wait()
            self._dying.clear()
            view = self._link.view
            states = {partition: state.value for partition, state in view.partitions.items()}
            pods = self.kubernetes.views().values()
            for death in deaths_due(pods, states, view.members, self._applier.reported):
                try:
                    await self._applier.report(ReportDeath(death))
                    self.cluster.count("words of death")
                except CoordinationUnavailableError:
                    self._dying.set()
                    await asyncio.sleep(0.5)
