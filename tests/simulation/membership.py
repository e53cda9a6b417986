"""The operator of one partition: pods come and go meanwhile, by the steps that `kvoperator` decides on."""

from random import Random
from typing import TYPE_CHECKING

from kvcommon.numbers import default_min_in_sync
from kvcoord.contract import PartitionState
from kvnode.core.events import CasAnswered, Event, StateSeen
from kvoperator.plans.membership import Memory, next_state, removable
from tests.simulation.timeline import Mark

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster


class Operator:
    """What people ask for, and the life of the operator that looks after it."""

    def __init__(self, cluster: "Cluster") -> None:
        self.cluster, self.loop = cluster, cluster.loop
        self.rng: Random = self.loop.stream("operator")
        self.wanted = self._wanted_before = list(cluster.pods)
        self._life: Life | None = None

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
        self._wanted_before, self.wanted = self.wanted, pods
        self.note(f"a person wants {', '.join(pods)}", Mark.FAULT)

    def start(self) -> None:
        """Begin to look."""
        self._life = Life(self)
        self._life.start()

    def dies(self, *, asking: bool) -> None:
        """Its process ends, now or when it next asks for a change, and begins anew with what it can see.

        A person may think better of it meanwhile.
        """
        if self._life is None:
            return
        if asking and not self._life.ends_asking:
            self._life.ends_asking = True
            return
        if asking and self.rng.random() < 0.7:
            self.want(self._wanted_before)
        self.note("ends", Mark.END)
        self.cluster.checker.count("operators ended")
        self._life.over, self._life = True, None
        self.loop.after(self.rng.choice([0.05, 1.0, 3.0]), self.start)

    def note(self, what: str, mark: Mark = Mark.OPERATOR) -> None:
        self.loop.note("operator", what, mark)


class Life:
    """One of its process: looks at the state now and then, and makes one step. Coordination knows it by the name of a pod."""

    pod = who = "operator"

    def __init__(self, operator: Operator) -> None:
        self.operator, self.cluster, self.loop = operator, operator.cluster, operator.loop
        self.over = self.ends_asking = False
        self._looks = 0
        self._memory: Memory | None = None

    def start(self) -> None:
        """Begin to look."""
        self.loop.after(self.operator.rng.uniform(0.1, 0.6), self._look)

    def _look(self) -> None:
        if not self.over:
            self._looks += 1
            self.cluster.coordination.read(self, self._looks)
            self.start()

    def deliver(self, event: Event) -> None:
        """What coordination answers."""
        if self.over:
            return
        if isinstance(event, CasAnswered) and event.outcome is not None and self._memory is not None:
            self._memory = self._memory.answered()
        elif isinstance(event, StateSeen) and event.read == self._looks and event.state is not None:
            self._step(event.state, event.version)

    def _step(self, state: PartitionState, version: int) -> None:
        operator, cluster = self.operator, self.cluster
        memory = self._memory = (self._memory or Memory.begin(state, (0, 0))).saw(state, (0, 0))
        wanted = operator.wanted
        if not cluster.sound:  # a disk that is lost takes a copy: the operator takes no other meanwhile
            wanted = list(dict.fromkeys((*wanted, *state.replicas)))
        for pod in wanted:
            if pod not in cluster.machines:
                operator.note(f"has the pod {pod} made")
                cluster.grow(pod)
        for pod in cluster.pods:
            goes = pod not in wanted and removable(state, pod, memory)
            leaves = cluster.machines[pod].leaves  # what has begun ends before the pod is made anew
            if (goes or leaves) and cluster.shrink(pod, keep_disk=pod in wanted):
                operator.note(f"has taken {pod} away")
        step = next_state(state, wanted, cluster.pods, operator.min_in_sync, memory)
        if step is not None:
            operator.note(f"asks for the pods {', '.join(step.replicas)}, {step.min_in_sync} in sync at least")
            self._memory = memory.asks(state)
            cluster.checker.asks_membership(step)
            cluster.coordination.compare_and_set(self, version, step, lost=self.ends_asking)
            if self.ends_asking:
                operator.dies(asking=True)
