"""Growing and shrinking a partition: which change of its state may be made next.

The operator changes `replicas` and `min_in_sync` alone, by compare-and-set on the very state it decided on, one step at a time.
Who is in sync and who leads stays the leader's to say (rules 2 and 19: it keeps every state on its disk before it acts on
it, which nobody does for the operator): a pod that is named is taken into the in-sync set when it has everything; one
that is named no more is taken out of it by its leader, never with the last copies, and hands leadership over before.
"""

from collections.abc import Sequence
from dataclasses import replace

from kvcoord.contract import PartitionState


def next_state(
    state: PartitionState, wanted: Sequence[str], min_in_sync: int, newest: PartitionState
) -> PartitionState | None:
    """The state to ask for now, so that `wanted` become the partition's pods; None: nothing may be changed, or need be.

    `wanted` are at least `min_in_sync` pods. `newest` is the newest state of the partition that the operator has ever
    seen: an older one was put in its place (rule 19), and is the replicas' to mend.
    """
    if state.leader is None or state.age < newest.age:
        return None
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
    if (replicas, least) == (state.replicas, state.min_in_sync):
        return None
    return replace(state, replicas=replicas, min_in_sync=least, serial=state.serial + 1)


def settling(state: PartitionState) -> PartitionState:
    """The same state, one change on: when it is won, no change that was asked for before and not answered can be done."""
    return replace(state, serial=state.serial + 1)


def removable(state: PartitionState, pod: str, newest: PartitionState) -> bool:
    """Whether nothing counts on this pod any more: it may be deleted, and its volume with it. `newest`: as above.

    Whoever is neither named nor in sync can't come to be in sync, by no compare-and-set that may yet be done but one of the
    operator's own: to be asked only when none of those is without an answer, or a later state was read since (rule 2).
    """
    counted = pod in state.replicas or pod in {r.pod for r in state.in_sync}
    return state.leader is not None and not counted and state.age >= newest.age


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
