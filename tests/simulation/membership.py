"""The operator of one partition: pods come and go meanwhile, by the steps that `kvoperator` decides on."""

from random import Random
from typing import TYPE_CHECKING

from kvcommon.numbers import default_min_in_sync
from kvcoord.contract import PartitionState
from kvnode.core.events import CasAnswered, Event, StateSeen
from kvoperator.plans.membership import next_state, removable, settling
from tests.simulation.timeline import Mark

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster


class Operator:
    """Looks at the state now and then, and makes one step. Coordination knows it by the name of a pod, as it does a process."""

    pod = who = "operator"

    def __init__(self, cluster: "Cluster") -> None:
        self.cluster, self.loop = cluster, cluster.loop
        self.rng: Random = self.loop.stream("operator")
        self.wanted = list(cluster.pods)
        self._looks = 0
        self._newest: PartitionState | None = None
        self._doubted: PartitionState | None = None  # what a change was asked upon that is "maybe" (rule 2)

    @property
    def min_in_sync(self) -> int:
        return default_min_in_sync(len(self.wanted))

    @property
    def done(self) -> bool:
        """Whether the partition has the pods that are wanted, and no others are there."""
        state, wanted = self.cluster.coordination.state, set(self.wanted)
        return set(state.replicas) == set(self.cluster.pods) == wanted and state.min_in_sync == self.min_in_sync

    def want(self, pods: list[str]) -> None:
        """A person asks for these."""
        self.wanted = pods
        self._note(f"a person wants {', '.join(pods)}", Mark.FAULT)

    def start(self) -> None:
        """Begin to look."""
        self.loop.after(self.rng.uniform(0.1, 0.6), self._look)

    def _look(self) -> None:
        self._looks += 1
        self.cluster.coordination.read(self, self._looks)
        self.loop.after(self.rng.uniform(0.1, 0.6), self._look)

    def deliver(self, event: Event) -> None:
        """What coordination answers."""
        if isinstance(event, CasAnswered) and event.outcome is not None:
            self._doubted = None
        elif isinstance(event, StateSeen) and event.read == self._looks and event.state is not None:
            self._step(event.state, event.version)

    def _step(self, state: PartitionState, version: int) -> None:
        newest = self._newest = state if self._newest is None else max(self._newest, state, key=lambda s: s.age)
        wanted = self.wanted
        if not self.cluster.sound:  # a disk that is lost takes a copy: the operator takes no other meanwhile
            wanted = list(dict.fromkeys((*wanted, *state.replicas)))
        for pod in wanted:
            if pod not in self.cluster.machines:
                self._note(f"has the pod {pod} made")
                self.cluster.grow(pod)
        in_doubt = state == self._doubted
        for pod in self.cluster.pods:
            goes = not in_doubt and pod not in wanted and removable(state, pod, newest)
            leaves = self.cluster.machines[pod].leaves  # what has begun ends before the pod is made anew
            if (goes or leaves) and self.cluster.shrink(pod, keep_disk=pod in wanted):
                self._note(f"has taken {pod} away")
        step = next_state(state, wanted, self.min_in_sync, newest) or (settling(state) if in_doubt else None)
        if step is not None:
            self._note(f"asks for the pods {', '.join(step.replicas)}, {step.min_in_sync} in sync at least")
            self._doubted = state
            self.cluster.checker.asks_membership(step)
            self.cluster.coordination.compare_and_set(self, version, step)

    def _note(self, what: str, mark: Mark = Mark.OPERATOR) -> None:
        self.loop.note(self.who, what, mark)
