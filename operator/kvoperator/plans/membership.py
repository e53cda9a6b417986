"""Growing and shrinking a partition: which change of its state may be made next.

The operator changes `replicas` and `min_in_sync` alone, by compare-and-set on the very state it decided on, one step at a time.
Who is in sync and who leads stays the leader's to say (rules 2 and 19: it keeps every state on its disk before it acts on
it, which nobody does for the operator): a pod that is named is taken into the in-sync set when it has everything; one
that is named no more is taken out of it by its leader, never with the last copies, and hands leadership over before.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from kvcoord.contract import PartitionState

Age = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Memory:
    """What one life of the operator knows of a partition.

    `newest`: the age of the newest state that was ever seen. An older one was put in its place (rule 19), and is the
    replicas' to mend. `doubted`: a state upon which a change was asked for, or may have been, that may yet be done (rule 2):
    until a later one is read.
    """

    newest: Age
    doubted: PartitionState | None

    @classmethod
    def begin(cls, state: PartitionState, kept: Age) -> "Memory":
        """Of an operator that begins, at the first state that it reads; `kept` is the newest age in the KVCluster's status.

        The operator before may have ended in the middle of a change. It can have asked for it upon no later state than this.
        """
        return cls(max(state.age, kept), doubted=state)

    def saw(self, state: PartitionState, kept: Age) -> "Memory":
        """After another read; `kept` as in `begin`: what was read for the status may have been newer."""
        return replace(self, newest=max(self.newest, state.age, kept))

    def asks(self, state: PartitionState) -> "Memory":
        """Before a change upon this state is asked for."""
        return replace(self, doubted=state)

    def answered(self) -> "Memory":
        """The last change that was asked for is won or lost, so that none before it can be done either."""
        return replace(self, doubted=None)

    def trusts(self, state: PartitionState) -> bool:
        """Whether it may be acted on: someone has led, and nobody has put it in a newer one's place."""
        return state.leader is not None and state.age >= self.newest


def next_state(
    state: PartitionState, wanted: Sequence[str], pods: Collection[str], min_in_sync: int, memory: Memory
) -> PartitionState | None:
    """The state to ask for now, so that `wanted` become the partition's pods; None: nothing may be changed, or need be.

    `wanted` are at least `min_in_sync` pods, `pods` those that there are. While a change is in doubt, one that changes
    nothing is asked for before a pod may go: once that is won, the other can't be done any more.
    """
    if not memory.trusts(state):
        return None
    changed = _changed(state, wanted, min_in_sync)
    unsettled = state == memory.doubted and any(pod not in wanted and not _counted(state, pod) for pod in pods)
    return replace(changed, serial=state.serial + 1) if changed != state or unsettled else None


def removable(state: PartitionState, pod: str, memory: Memory) -> bool:
    """Whether nothing counts on this pod any more: it may be deleted, and its volume with it.

    Whoever is neither named nor in sync can't come to be in sync, by no compare-and-set that may yet be done but one of the
    operator's own: so not while one of those is in doubt.
    """
    return memory.trusts(state) and state != memory.doubted and not _counted(state, pod)


def _changed(state: PartitionState, wanted: Sequence[str], min_in_sync: int) -> PartitionState:
    replicas, least = state.replicas, state.min_in_sync
    new = [pod for pod in wanted if pod not in replicas]
    if new:
        replicas = (*replicas, *new)
    elif min_in_sync < least:
        least = min_in_sync
    else:
        gone = _to_take_out(state, wanted)
        replicas = tuple(pod for pod in replicas if pod not in gone)
        if not gone and _in_sync(state, wanted) >= min_in_sync:
            least = min_in_sync  # not before: writes would be refused
    return replace(state, replicas=replicas, min_in_sync=least)


def _counted(state: PartitionState, pod: str) -> bool:
    return pod in state.replicas or pod in {r.pod for r in state.in_sync}


def _to_take_out(state: PartitionState, wanted: Sequence[str]) -> tuple[str, ...]:
    """Pods to name no more: at once those that nobody misses, else one, when all who stay are in sync; a leader last."""
    in_sync = {replica.pod for replica in state.in_sync}
    surplus = [pod for pod in state.replicas if pod not in wanted]
    idle = tuple(pod for pod in surplus if pod not in in_sync)
    if idle or not surplus or not in_sync <= set(state.replicas) or _in_sync(state, wanted) < len(wanted):
        return idle
    leader = state.leader.replica.pod if state.leader is not None else ""
    return (min(surplus, key=lambda pod: pod == leader),)


def _in_sync(state: PartitionState, pods: Sequence[str]) -> int:
    return sum(replica.pod in pods for replica in state.in_sync)
