from dataclasses import replace
from typing import Any

import pytest

from kvcoord.contract import ClusterIdentity
from kvoperator.actions import CreateIdentity, CreateMap, CreatePartition
from kvoperator.planner import plan
from kvoperator.plans.birth import first_members
from kvoperator.spec import parse_spec
from kvoperator.status import KVClusterStatus
from tests.unit.kvoperator.pictures import (
    ID,
    SPEC,
    cluster,
    coordination,
    healthy,
    member,
    replica,
    state,
    told,
    unborn,
)

YOUNG = KVClusterStatus(clusterId=ID)


def young(seen: Any, status: Any = YOUNG, spec: Any = None) -> Any:
    changes = {"spec": spec} if spec else {}
    return replace(healthy(), cluster=cluster(status=status, **changes), coordination=seen)


def births(snapshot: Any) -> Any:
    return [a for a in plan(snapshot).actions if isinstance(a, CreateIdentity | CreateMap | CreatePartition)]


def degraded(snapshot: Any) -> Any:
    condition = told(plan(snapshot).status, "Degraded")
    return condition.status, condition.reason


def test_once_all_first_replicas_are_registered_and_empty_the_cluster_is_born() -> None:
    identity, slot_map, first, second = births(young(unborn()))

    assert identity == CreateIdentity(ClusterIdentity(ID, "c", 2, 3))
    assert slot_map == CreateMap(2)
    assert (first.partition, second.partition) == (0, 1)
    assert (first.state.epoch, first.state.leader, first.state.min_in_sync) == (0, None, 2)
    assert first.state.replicas == ("c-p0-0", "c-p0-1", "c-p0-2")
    assert set(first.state.in_sync) == {replica(name) for name in first.state.replicas}


def test_those_who_will_lead_first_sit_on_different_machines() -> None:
    *_, first, second = births(young(unborn()))
    nodes = {a.state.in_sync[0].pod.rsplit("-", 1)[1] for a in (first, second)}  # node-<ordinal> in these pictures

    assert len(nodes) == 2


def test_a_partition_waits_for_the_last_of_its_replicas() -> None:
    made = births(young(unborn(away=("c-p0-1",))))

    assert [a.partition for a in made if isinstance(a, CreatePartition)] == [1]


def test_nothing_is_made_before_any_partition_can_be() -> None:
    assert births(young(unborn(away=("c-p0-1", "c-p1-0")))) == []


def test_an_operator_that_was_cut_off_half_way_goes_on_where_it_was() -> None:
    half = replace(coordination({0: state(0, leader=None, epoch=0)}, empty=True), slot_map=None)
    made = births(young(half))

    assert [type(a) for a in made] == [CreateMap, CreatePartition]
    assert made[1].partition == 1


def test_what_is_complete_is_not_made_again() -> None:
    assert births(young(coordination())) == []
    assert plan(young(coordination())).status.born


def test_a_member_with_data_forbids_a_birth() -> None:
    seen = unborn()
    seen = replace(seen, members={**seen.members, "c-p1-1": member("c-p1-1", empty=False)})
    snapshot = young(seen)

    assert [a for a in births(snapshot) if isinstance(a, CreatePartition) and a.partition == 1] == []
    assert degraded(snapshot) == ("True", "CoordinationDataLost")
    assert "c-p1-1 has data" in told(plan(snapshot).status, "Degraded").message


def test_only_empty_members_of_the_partition_are_its_first() -> None:
    seen = unborn()
    used = replace(seen, members={**seen.members, "c-p0-1": member("c-p0-1", empty=False)})
    stray = replace(seen, members={**seen.members, "c-p0-1": replace(seen.members["c-p0-1"], partition=1)})

    assert first_members(young(seen), SPEC, 0) is not None
    assert first_members(young(used), SPEC, 0) is None
    assert first_members(young(stray), SPEC, 0) is None


@pytest.mark.parametrize("empty", [True, False])
def test_state_that_was_there_is_never_made_anew(empty: Any) -> None:
    snapshot = young(unborn(empty=empty), status=KVClusterStatus(clusterId=ID, born=True))

    assert births(snapshot) == []
    assert degraded(snapshot) == ("True", "CoordinationDataLost")


def test_one_partition_missing_after_the_birth_is_lost_data_too() -> None:
    snapshot = young(coordination({0: state(0)}), status=KVClusterStatus(clusterId=ID, born=True))

    assert births(snapshot) == []
    assert degraded(snapshot) == ("True", "CoordinationDataLost")


def test_with_zookeeper_away_nothing_is_born_and_nothing_is_lost() -> None:
    snapshot = replace(young(None), coordination_error="no answer")

    assert births(snapshot) == []
    assert degraded(snapshot)[1] != "CoordinationDataLost"


def test_kept_data_of_another_shape_is_a_contradiction_of_the_spec() -> None:
    snapshot = young(coordination(), spec=parse_spec({"partitions": 4}))

    assert degraded(snapshot) == ("True", "InvalidSpec")
    assert "2 partitions of 3 replicas" in told(plan(snapshot).status, "Degraded").message
    assert births(snapshot) == []


def test_while_it_is_being_made_nothing_is_wrong_and_it_says_what_it_waits_for() -> None:
    snapshot = young(unborn(away=("c-p0-1", "c-p1-0")))
    status = plan(snapshot).status

    assert status.phase == "Creating"
    assert (told(status, "Degraded").status, told(status, "Available").status) == ("False", "False")
    assert told(status, "Progressing").message == "waiting for nodes to register: c-p0-1, c-p1-0"


def test_the_birth_is_an_event() -> None:
    assert "Born" in [e.reason for e in plan(young(coordination())).events]
