"""A cluster's birth: what the operator does once in Kubernetes, done here by `make run`.

Partition state is created once, when all first replicas have registered with an empty log. A log that is not empty
without state means that the coordination data was lost: never a new birth.
"""

from collections.abc import Mapping
from contextlib import aclosing
from typing import Protocol, cast

from kvcommon.errors import ConfigurationError
from kvcommon.slotmap import SlotMap
from kvcoord.contract import ClusterIdentity, Coordination, MemberInfo, PartitionState
from kvlocal.shape import Shape


class _Closing(Protocol):
    async def aclose(self) -> None: ...


def first_state(partition: int, shape: Shape, members: Mapping[str, MemberInfo]) -> PartitionState | None:
    """A partition's first state; None while one of its replicas has not registered.

    Raises ConfigurationError when a replica's log is not empty.
    """
    pods = shape.pods_of(partition)
    if any(pod not in members for pod in pods):
        return None
    used = [pod for pod in pods if not members[pod].empty]
    if used:
        raise ConfigurationError(
            f"partition {partition} has no state in coordination, but {', '.join(used)} holds data: the coordination "
            f"data was lost. Bring it back, or begin anew with another data folder"
        )
    return PartitionState(
        epoch=0,
        leader=None,
        in_sync=tuple(members[pod].replica for pod in pods),
        replicas=pods,
        min_in_sync=shape.min_in_sync,
    )


async def found(coordination: Coordination, cluster_id: str, shape: Shape) -> None:
    """Make the cluster's identity and map, if they are not there; ConfigurationError if they are another cluster's."""
    identity = ClusterIdentity(cluster_id, shape.name, shape.partitions, shape.replicas)
    await coordination.create_identity(identity)
    there = await coordination.read_identity()
    if there is None or there.cluster_id != cluster_id:
        raise ConfigurationError(f"coordination holds cluster {there and there.cluster_id}, not {cluster_id}")
    await coordination.create_map(SlotMap.even(shape.partitions))


async def give_birth(coordination: Coordination, shape: Shape) -> tuple[int, ...]:
    """Create the state of each partition that has none, once its replicas have registered; the partitions made."""
    missing = {p for p in range(shape.partitions) if await coordination.read_partition(p) is None}
    born = tuple(sorted(missing))
    if not missing:
        return ()
    watch = coordination.watch_members()
    async with aclosing(cast("_Closing", watch)):
        async for members in watch:
            for partition in sorted(missing):
                state = first_state(partition, shape, members)
                if state is not None:
                    await coordination.create_partition(partition, state)
                    missing.discard(partition)
            if not missing:
                return born
    raise ConfigurationError("coordination was closed before the cluster was born")
