"""Birth: once, when all first replicas are there and empty."""

import asyncio
from collections.abc import Iterable

import pytest

from kvcommon.errors import ConfigurationError
from kvcoord.contract import ClusterIdentity, MemberInfo, PartitionState, ReplicaId
from kvcoord.memory import MemoryCoordination, MemoryStore
from kvlocal.birth import first_state, give_birth
from kvlocal.shape import Shape

SHAPE = Shape("c", partitions=1, replicas=2, min_in_sync=1)


def member(pod: str, *, empty: bool = True) -> MemberInfo:
    """A registered node."""
    return MemberInfo(pod, 0, ReplicaId(pod, "i"), "r", "h:1", "h:2", "h:3", empty=empty)


def test_a_partition_waits_for_all_its_replicas() -> None:
    """One that is missing may be the one with data."""
    assert first_state(0, SHAPE, {"c-p0-0": member("c-p0-0")}) is None


def test_all_first_replicas_are_in_sync_at_birth_and_nobody_leads() -> None:
    """Nodes elect by themselves."""
    members = {pod: member(pod) for pod in ("c-p0-1", "c-p0-0", "c-p1-0")}

    assert first_state(0, SHAPE, members) == PartitionState(
        epoch=0,
        leader=None,
        in_sync=(ReplicaId("c-p0-0", "i"), ReplicaId("c-p0-1", "i")),
        replicas=("c-p0-0", "c-p0-1"),
        min_in_sync=1,
    )


def test_data_without_state_is_never_a_new_birth() -> None:
    """The coordination data was lost; the nodes put it back from their disks."""
    members = {"c-p0-0": member("c-p0-0"), "c-p0-1": member("c-p0-1", empty=False)}

    assert first_state(0, SHAPE, members) is None


async def started(members: Iterable[MemberInfo]) -> MemoryCoordination:
    """Coordination at which these have registered."""
    store = MemoryStore()
    for one in members:
        node = store.session()
        await node.start()
        await node.register_member(one)
    coordination = store.session()
    await coordination.start()
    return coordination


async def test_a_birth_makes_identity_map_and_states_once() -> None:
    """Asked again it finds them."""
    coordination = await started(member(pod) for pod in SHAPE.pods)

    assert await give_birth(coordination, "id", SHAPE) == (0,)
    assert await give_birth(coordination, "id", SHAPE) == ()
    assert await coordination.read_map() is not None


async def test_another_clusters_coordination_is_refused() -> None:
    """Before anything is made."""
    coordination = await started(member(pod) for pod in SHAPE.pods)
    await coordination.create_identity(ClusterIdentity("other", "o", 1, 2))

    with pytest.raises(ConfigurationError, match="coordination holds cluster other"):
        await give_birth(coordination, "id", SHAPE)
    assert await coordination.read_partition(0) is None


async def test_what_is_missing_while_nodes_have_data_is_waited_for() -> None:
    """Not even a map is made: the nodes may know a newer one."""
    coordination = await started(member(pod, empty=False) for pod in SHAPE.pods)

    waiting = asyncio.create_task(give_birth(coordination, "id", SHAPE))
    for _ in range(20):
        await asyncio.sleep(0)
    assert await coordination.read_map() is None
    state = first_state(0, SHAPE, {pod: member(pod) for pod in SHAPE.pods})
    assert state is not None
    await coordination.create_partition(0, state)
    assert await waiting == ()
