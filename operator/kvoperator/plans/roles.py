"""Who leads, as a label on the pods: for people, selectors and tools. Nothing of ours relies on it."""

from kvoperator.actions import Action, LabelPod
from kvoperator.names import COMPONENT_NODE, ROLE_FOLLOWER, ROLE_LEADER
from kvoperator.snapshot import Snapshot


def labels_due(snapshot: Snapshot) -> list[Action]:
    """Labels to change; new leaders before old ones, so that a watcher never sees a partition without."""
    if snapshot.coordination is None:
        return []
    actions: list[LabelPod] = []
    for pod in snapshot.pods.values():
        state = snapshot.coordination.partitions.get(pod.partition) if pod.partition is not None else None
        if state is None or pod.component != COMPONENT_NODE or pod.deleting:
            continue
        leads = state.leader is not None and state.leader.replica.pod == pod.name
        role = ROLE_LEADER if leads else ROLE_FOLLOWER
        if pod.role != role:
            actions.append(LabelPod(pod.name, pod.uid, role))
    return [*sorted(actions, key=lambda action: (action.role != ROLE_LEADER, action.name))]
