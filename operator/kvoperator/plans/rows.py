"""A row per partition: coordination's word where it can be asked, otherwise the last one known, beside the pods' readiness.

A state older than the last one known was put in its place, and is the nodes' to mend (rule 19): the row stays.
"""

from collections.abc import Sequence

from kvoperator.names import COMPONENT_NODE
from kvoperator.snapshot import Snapshot
from kvoperator.spec import KVClusterSpec
from kvoperator.status import PartitionRow


def rows(snapshot: Snapshot, spec: KVClusterSpec) -> list[PartitionRow]:
    """One row for each partition, ascending."""
    return [_row(snapshot, spec, partition) for partition in range(spec.partitions)]


def _row(snapshot: Snapshot, spec: KVClusterSpec, partition: int) -> PartitionRow:
    pods = [p for p in snapshot.pods.values() if p.component == COMPONENT_NODE and p.partition == partition]
    known = snapshot.cluster.status.row(partition) or PartitionRow(partition=partition)
    state = snapshot.coordination.partitions.get(partition) if snapshot.coordination else None
    if state is not None and state.age >= known.age:
        known = PartitionRow(
            partition=partition,
            leader=state.leader.replica.pod if state.leader else "",
            epoch=state.epoch,
            serial=state.serial,
            generation=state.generation,
            inSync=[replica.pod for replica in state.in_sync],
        )
    return known.model_copy(update={"replicas": spec.replicas, "ready": sum(p.ready for p in pods)})


def served(snapshot: Snapshot, row: PartitionRow) -> bool:
    """Whether a partition's leader is there and ready, which is to say that it serves."""
    leader = snapshot.pods.get(row.leader)
    return leader is not None and leader.ready


def unserved(snapshot: Snapshot, all_rows: Sequence[PartitionRow]) -> list[PartitionRow]:
    """Partitions that nobody serves."""
    return [row for row in all_rows if not served(snapshot, row)]
