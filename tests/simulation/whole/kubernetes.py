"""A model of Kubernetes, as far as it touches data: pods, their revisions, and the kubelet's word of an end.

Deleting a pod is a SIGTERM and, when that takes too long, a SIGKILL; its controller then makes it anew, of the newest revision.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvnode.core.types import Role
from kvoperator.names import COMPONENT_NODE
from kvoperator.snapshot import Ended, PodView, StatefulSetView
from tests.simulation.timeline import Mark

if TYPE_CHECKING:
    from tests.simulation.whole.cluster import Partition, WholeCluster
    from tests.simulation.whole.machines import Machine
    from tests.simulation.whole.nodes import NodeProcess

GRACE = 10.0  # seconds between SIGTERM and SIGKILL


@dataclass(slots=True)
class Pod:
    """A pod object; one that is made anew is another, under the same name."""

    uid: str
    revision: int
    ended: tuple[Ended, ...] = ()  # what the kubelet has said, the last first
    deleting: bool = False


class Kubernetes:
    """Pods of all partitions. `revision` is that of all StatefulSets."""

    def __init__(self, cluster: "WholeCluster") -> None:
        self.cluster = cluster
        self.loop = cluster.loop
        self.revision = 1
        self._pods: dict[str, Pod] = {}
        self._made = 0

    def pod(self, machine: "Machine") -> Pod:
        """The pod of a machine, which its controller has made when it was missing."""
        found = self._pods.get(machine.pod)
        if found is None:
            self._made += 1
            found = self._pods[machine.pod] = Pod(f"{machine.pod}-{self._made}", self.revision)
        return found

    def starting(self, machine: "Machine") -> None:
        """A container is about to run: in a new pod, if the one before was deleted."""
        if self.pod(machine).deleting:
            del self._pods[machine.pod]
            self.pod(machine)

    def ended(self, process: "NodeProcess") -> None:
        """The kubelet says that this run has ended, which is true."""
        pod = self.pod(process.machine)
        process.partition.words.add(process.who)
        pod.ended = (Ended(process.who, f"container-{process.who}"), *pod.ended)
        self.loop.note("kubelet", f"{process.pod} run {process.who} is terminated", Mark.FAULT)

    def call_off(self) -> None:
        """No pod is to be of another revision than it is."""
        for pod in self._pods.values():
            pod.revision = self.revision

    @property
    def at_work(self) -> bool:
        """Whether a pod is being deleted."""
        return any(pod.deleting for pod in self._pods.values())

    # --- what the operator sees and does -----------------------------------------------------------------------------

    def views(self) -> dict[str, PodView]:
        """All pods, as the operator's planner takes them."""
        return {m.pod: self._view(p, m) for p in self.cluster.partitions for m in p.machines.values()}

    def _view(self, partition: "Partition", machine: "Machine") -> PodView:
        pod, process = self.pod(machine), machine.process
        serves = process is not None and process.serving and (process.core.in_sync or process.core.role is Role.LEADER)
        return PodView(
            name=machine.pod,
            uid=pod.uid,
            component=COMPONENT_NODE,
            partition=partition.number,
            node=machine.pod,
            revision=str(pod.revision),
            ready=serves and partition.sound,  # no fault takes the last good copy
            deleting=pod.deleting,
            running=process is not None,
            ended=pod.ended,
        )

    def statefulsets(self) -> dict[str, StatefulSetView]:
        """Those of the partitions."""
        names = self.cluster.names
        return {
            names.partition(p.number): StatefulSetView(
                names.partition(p.number),
                settled=True,
                update_revision=str(self.revision),
                replicas=len(p.machines),
                ready=len(p.machines),
            )
            for p in self.cluster.partitions
        }

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        """As `kvoperator.kube.Kube` has it; of pods alone."""
        assert kind == "Pod"
        machine = self.cluster.machines[name]
        if self.pod(machine).uid == uid:
            self.loop.note("operator", f"deletes the pod {name}", Mark.OPERATOR)
            self.cluster.count("pods deleted")
            self._delete(machine)

    def _delete(self, machine: "Machine") -> None:
        self.pod(machine).deleting = True
        process = machine.process
        if process is None:
            machine.start()
            return
        self.loop.call_soon(process.leave, context=process.actor.context)
        self.loop.after(GRACE, self._kill, process)

    def _kill(self, process: "NodeProcess") -> None:
        if process.alive:
            self.cluster.ended_by_itself(process)

    # --- the size of a StatefulSet -----------------------------------------------------------------------------------

    def grow(self, partition: "Partition", pod: str) -> None:
        """Another pod: on a new machine, or with the disk that it left behind."""
        machine = partition.add(pod)
        self.loop.note("operator", f"has the pod {pod} made", Mark.OPERATOR)
        self.cluster.plan_start(machine, machine.rng.random() * 0.5)

    def shrink(self, partition: "Partition", pod: str, *, keep_disk: bool) -> None:
        """One pod less. To be called until it is gone; its disk may be deleted, unless it is to be kept."""
        machine = partition.machines[pod]
        if not machine.leaves:
            self.loop.note("operator", f"has the pod {pod} taken away", Mark.OPERATOR)
            machine.leaves = True
            self._delete(machine)
        if machine.process is None:
            kept = keep_disk or machine.rng.random() < 0.5
            self.loop.note(
                "operator", f"has taken {pod} away, its disk is {'kept' if kept else 'deleted'}", Mark.OPERATOR
            )
            self.cluster.count("pods taken away")
            del self._pods[pod]
            partition.take_away(machine, keep_disk=kept)
