"""A cluster's birth: what the operator does once in Kubernetes, done here by `make run`.

Identity and map are made, and a partition's state created, once, when all first replicas have registered with an empty
log. A log that is not empty where these are missing means that the coordination data was lost: the nodes put it back from
their disks, and nothing is made here.
"""

from collections.abc import Mapping
from contextlib import aclosing
from typing import Protocol, cast

from kvcommon.errors import ConfigurationError
from kvcommon.slotmap import SlotMap
from kvcoord.contract import ClusterIdentity, Coordination, MemberInfo, PartitionState, Won
from kvlocal.shape import Shape


class _Closing(Protocol):
    async def aclose(self) -> None: ...


def first_state(partition: int, shape: Shape, members: Mapping[str, MemberInfo]) -> PartitionState | None:
    """A partition's first state; None while one of its replicas has not registered, or when one has data."""
    pods = shape.pods_of(partition)
    if any(pod not in members or not members[pod].empty for pod in pods):
        return None
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


async def give_birth(coordination: Coordination, cluster_id: str, shape: Shape) -> tuple[int, ...]:
    """Return once every partition has a state: the partitions that got theirs here. The others were put back by nodes.

    Raises ConfigurationError when coordination is another cluster's.
    """
    if all([await coordination.read_partition(p) is not None for p in range(shape.partitions)]):
        await found(coordination, cluster_id, shape)
        return ()
    born: set[int] = set()
    watch = coordination.watch_members()
    async with aclosing(cast("_Closing", watch)):
        async for members in watch:
            if _whole(members, shape):
                break
    if all(members[pod].empty for pod in shape.pods) or await coordination.read_map() is not None:
        await found(coordination, cluster_id, shape)
        for partition in range(shape.partitions):
            state = first_state(partition, shape, members)
            if state is not None and isinstance(await coordination.create_partition(partition, state), Won):
                born.add(partition)
    for partition in range(shape.partitions):
        await _there(coordination, partition)
    return tuple(sorted(born))


def _whole(members: Mapping[str, MemberInfo], shape: Shape) -> bool:
    return all(pod in members for pod in shape.pods)


async def _there(coordination: Coordination, partition: int) -> None:
    watch = coordination.watch_partition(partition)
    async with aclosing(cast("_Closing", watch)):
        async for versioned in watch:
            if versioned is not None:
                return
    raise ConfigurationError("coordination was closed before the cluster was born")
