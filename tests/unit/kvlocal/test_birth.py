"""Birth: once, when all first replicas are there and empty."""

import pytest

from kvcommon.errors import ConfigurationError
from kvcoord.contract import MemberInfo, PartitionState, ReplicaId
from kvlocal.birth import first_state
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
    """The coordination data was lost; who has it is named."""
    members = {"c-p0-0": member("c-p0-0"), "c-p0-1": member("c-p0-1", empty=False)}

    with pytest.raises(ConfigurationError, match=r"c-p0-1 holds data: the coordination data was lost"):
        first_state(0, SHAPE, members)
