"""The word of death (docs/correctness.md, rule 7): what the kubelet has reported and coordination does not know yet."""

from collections.abc import Iterable, Mapping

from kvcoord.contract import Death, MemberInfo, PartitionState
from kvoperator.snapshot import PodView


def deaths_due(
    pods: Iterable[PodView],
    partitions: Mapping[int, PartitionState],
    members: Mapping[str, MemberInfo],
    reported: Mapping[str, str],
) -> list[Death]:
    """Deaths to report now. `reported` has the run of each pod whose death was reported last.

    Only of a run that someone still counts on: it leads, or is the one its pod registered last. That a pod is gone, or
    its machine, is not death: the process may still run.
    """
    due = []
    for pod in pods:
        state = partitions.get(pod.partition) if pod.partition is not None else None
        if state is None or not pod.ended:
            continue
        ended, member = pod.ended[0], members.get(pod.name)
        leads = state.leader is not None and (state.leader.replica.pod, state.leader.run) == (pod.name, ended.run)
        if (leads or (member is not None and member.run == ended.run)) and reported.get(pod.name) != ended.run:
            due.append(Death(pod.name, ended.run, ended.container_id, state.epoch))
    return due
