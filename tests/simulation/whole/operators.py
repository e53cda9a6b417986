"""The operator: its deciding code and its way to coordination as shipped, over a model of Kubernetes.

Shipped are `kvoperator`'s births, words of death, rolling replacements, the steps by which a partition grows and shrinks,
what carries them out, the rows of its status, and its link to coordination. Its rounds are put together in
`operator_process`: those of `kvoperator.worker` also ask Kubernetes for a dozen kinds of objects that touch no data, and
growing is not among what they plan yet.
"""

from typing import TYPE_CHECKING

from kvcoord.contract import PartitionState
from kvcoord.memory import MemoryCoordination
from kvoperator.spec import KVClusterSpec
from kvoperator.status import KVClusterStatus
from tests.simulation.timeline import Mark
from tests.simulation.whole.kubernetes import Kubernetes
from tests.simulation.whole.operator_process import OperatorProcess

if TYPE_CHECKING:
    from tests.simulation.whole.cluster import WholeCluster
    from tests.simulation.whole.nodes import NodeProcess


class Operator:
    """What outlives its process: Kubernetes, in it the status, and `spec`, which is what a person asks for."""

    def __init__(self, cluster: "WholeCluster", spec: KVClusterSpec) -> None:
        self.cluster, self.spec = cluster, spec
        self.loop = cluster.loop
        self.rng = self.loop.stream("operator")
        self.kubernetes = Kubernetes(cluster)
        self.status = KVClusterStatus(clusterId=cluster.cluster_id)
        self.lives = 1
        self.process = OperatorProcess(self, "operator")

    @property
    def born(self) -> bool:
        """Whether it is written down that the cluster was born."""
        return self.status.born

    @property
    def session(self) -> MemoryCoordination:
        return self.process.session

    def start(self) -> None:
        """Begin to look."""
        self.process.start()

    def dies(self, steps: int) -> None:
        """End its process after so many steps of its work, 0: now. It begins anew with what it can see."""
        if not self.process.actor.alive:
            return
        if steps:
            self.process.steps_left = steps
        else:
            self.ends()

    def ends(self, process: OperatorProcess | None = None) -> None:
        """Its process (this one) is dead, and comes back."""
        if not self.process.actor.alive or process not in (None, self.process):
            return
        self.loop.note("operator", "ends", Mark.END)
        self.cluster.count("operators ended")
        self.process.end()
        self.loop.after(self.rng.choice([0.05, 1.0, 3.0]), self._begin_anew)

    def _begin_anew(self) -> None:
        self.lives += 1
        self.loop.note("operator", "begins anew", Mark.START)
        self.process = OperatorProcess(self, f"operator-{self.lives}")
        self.process.start()

    def knows_better(self, partition: int, state: PartitionState) -> bool:
        """Whether it is written down that there was a newer state than this one."""
        row = self.status.row(partition)
        return row is not None and row.age > state.age

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
        if self.process.actor.alive:
            self.process.told()
