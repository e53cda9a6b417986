"""The operator: its deciding code and its way to coordination as shipped, over a model of Kubernetes.

Shipped are `kvoperator`'s births, words of death, rolling replacements, the steps by which a partition grows and shrinks,
what carries them out, and its link to coordination. Its rounds are put together here: those of `kvoperator.worker` also ask
Kubernetes for a dozen kinds of objects that touch no data, and growing is not among what they plan yet.
"""

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from kvcoord.contract import CoordinationUnavailableError, Lost, PartitionState
from kvoperator.actions import ReportDeath
from kvoperator.apply import Applier
from kvoperator.link import Link
from kvoperator.plans.birth import all_there, births
from kvoperator.plans.deaths import deaths_due
from kvoperator.plans.membership import next_state, removable, settling
from kvoperator.plans.rolling import replacements
from kvoperator.snapshot import ClusterView, CoordinationView, Snapshot
from kvoperator.spec import KVClusterSpec
from kvoperator.status import KVClusterStatus
from tests.simulation.timeline import Mark
from tests.simulation.whole.kubernetes import Kubernetes
from tests.simulation.whole.world import Actor

if TYPE_CHECKING:
    from tests.simulation.whole.cluster import Partition, WholeCluster
    from tests.simulation.whole.nodes import NodeProcess

NOW = datetime(2026, 11, 28, tzinfo=UTC)  # nothing that is decided here asks for the time


class Operator:
    """One operator, which lives as long as the run. `spec` is what a person asks for."""

    def __init__(self, cluster: "WholeCluster", spec: KVClusterSpec) -> None:
        self.cluster, self.spec = cluster, spec
        self.loop = cluster.loop
        self.rng = self.loop.stream("operator")
        self.actor = Actor(self.loop, "operator", "operator")
        self.session = cluster.coordination.session("operator")
        self.kubernetes = Kubernetes(cluster)
        self.born = False
        self._dying = asyncio.Event()
        self._link = Link(lambda _: self.session, self._dying.set)
        self._applier = Applier(cast("Any", self.kubernetes), lambda: self.session, lambda: NOW)
        self._newest: dict[int, PartitionState] = {}  # seen of each partition
        self._doubted: dict[int, PartitionState] = {}  # what a change was asked upon that is "maybe" (rule 2)
        cluster.actors.append(self.actor)

    def start(self) -> None:
        """Begin to look."""
        self.actor.spawn(self._rounds(), "rounds")
        self.actor.spawn(self._pass_on_deaths(), "deaths")

    def knows_better(self, partition: int, state: PartitionState) -> bool:
        """Whether it has seen a newer state than this one."""
        newest = self._newest.get(partition)
        return newest is not None and newest.age > state.age

    def ask_for(self, replicas: int) -> None:
        """A person changes `spec.replicas`; too few or too many, or before the cluster's birth: nothing."""
        if self.born and 2 <= replicas <= self.cluster.options.replicas + 2:
            self.spec = KVClusterSpec(partitions=self.spec.partitions, replicas=replicas)
            self.loop.note("operator", f"a person wants {replicas} replicas of each partition", Mark.FAULT)

    def wanted(self, partition: int) -> tuple[str, ...]:
        """The pods that a partition is to have."""
        return self.cluster.names.replicas(partition, self.spec.replicas)

    def told(self, process: "NodeProcess") -> None:
        """The kubelet's word is there."""
        self.kubernetes.ended(process)
        self.loop.call_soon(self._dying.set, context=self.actor.context)

    # --- its work ----------------------------------------------------------------------------------------------------

    async def _rounds(self) -> None:
        await self._link.open("memory")
        while True:
            await asyncio.sleep(self.rng.uniform(0.1, 0.6))
            try:
                await self._round()
            except CoordinationUnavailableError as e:
                self.loop.note("operator", f"coordination can't be asked: {e}", detail=True)

    async def _round(self) -> None:
        coordination = await self._link.read(range(self.spec.partitions))
        snapshot = self._snapshot(coordination)
        self.born = self.born or all_there(coordination, self.spec)
        actions = births(snapshot, self.spec, self.cluster.cluster_id)
        actions += replacements(snapshot, self.spec, frozenset())
        for action in actions:
            await self._applier.carry_out(snapshot.cluster, action)
        for partition in self.cluster.partitions:
            await self._resize(partition)

    def _snapshot(self, coordination: CoordinationView) -> Snapshot:
        status = KVClusterStatus(clusterId=self.cluster.cluster_id, born=self.born)
        return Snapshot(
            cluster=ClusterView(self.cluster.names, "uid", 1, self.spec, "", status),
            now=NOW,
            fresh_id="",
            default_image="",
            statefulsets=self.kubernetes.statefulsets(),
            pods=self.kubernetes.views(),
            coordination=coordination,
        )

    async def _resize(self, partition: "Partition") -> None:
        """One step towards the replicas that are wanted, and the pods that go with it."""
        number, coordination = partition.number, self.cluster.coordination
        coordination.pending += 1  # a session's end would end this, too, so that nothing is asked upon what was lost
        try:
            found = await self.session.read_partition(number)
            if found is None:
                return
            state, wanted = found.value, self.wanted(number)
            if (
                not partition.sound
            ):  # a disk that is as good as lost takes a copy: the operator takes no other meanwhile
                wanted = tuple(dict.fromkeys((*wanted, *state.replicas)))
            newest = self._newest[number] = max(self._newest.get(number, state), state, key=lambda s: s.age)
            for pod in wanted:
                if pod not in partition.machines and state.age == newest.age:
                    self.kubernetes.grow(partition, pod)
            in_doubt = state == self._doubted.get(number)
            for pod in partition.pods:
                goes = not in_doubt and pod not in wanted and removable(state, pod, newest)
                if goes or partition.machines[pod].leaves:  # what has begun ends before the pod is made anew
                    self.kubernetes.shrink(partition, pod, keep_disk=pod in wanted)
            step = next_state(state, wanted, self.spec.min_in_sync, newest) or (settling(state) if in_doubt else None)
            if step is not None:
                self._doubted[number] = state
                await self._ask(partition, found.version, step)
                del self._doubted[number]
        finally:
            coordination.pending -= 1

    async def _ask(self, partition: "Partition", version: int, step: PartitionState) -> None:
        what = f"p{partition.number} be {', '.join(step.replicas)}, {step.min_in_sync} in sync at least"
        self.loop.note("operator", f"asks that {what}", Mark.OPERATOR, epoch=step.epoch)
        partition.checker.asks_membership(step)
        outcome = await self.session.compare_and_set_partition(partition.number, version, step)
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
