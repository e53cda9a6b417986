from dataclasses import replace

from kvcoord.contract import PartitionState, ReplicaId
from kvoperator.plans.membership import Memory, next_state, removable
from tests.unit.kvoperator.pictures import NAMES, state

ZERO, ONE, TWO, THREE = NAMES.replicas(0, 4)


def asked(now: PartitionState, *wanted: str, least: int = 2) -> PartitionState | None:
    return next_state(now, wanted, wanted, least, knowing(now))


def knowing(newest: PartitionState) -> Memory:
    """An operator whose changes were all answered."""
    return Memory(newest.age, doubted=None)


def test_nothing_is_asked_for_when_all_is_as_wanted() -> None:
    assert asked(state(0), ZERO, ONE, TWO) is None


def test_new_pods_are_named_at_once_and_nothing_else_changes() -> None:
    now = state(0)

    assert asked(now, ZERO, ONE, TWO, THREE) == replace(now, replicas=(ZERO, ONE, TWO, THREE), serial=now.serial + 1)


def test_more_copies_are_asked_for_only_when_they_are_there() -> None:
    """Writes would be refused until then."""
    now = replace(state(0), replicas=(ZERO, ONE, TWO, THREE))
    joined = replace(now, in_sync=(*now.in_sync, ReplicaId(THREE, "new")))

    assert asked(now, ZERO, ONE, TWO, THREE, least=4) is None
    assert asked(joined, ZERO, ONE, TWO, THREE, least=4) == replace(joined, min_in_sync=4, serial=joined.serial + 1)


def test_fewer_copies_are_asked_for_before_a_pod_goes() -> None:
    """Its leader can spare none that minInSync asks for."""
    now = state(0)
    lowered = replace(now, min_in_sync=1, serial=now.serial + 1)

    assert asked(now, ZERO, least=1) == lowered
    assert asked(lowered, ZERO, least=1) == replace(lowered, replicas=(ZERO, TWO), serial=lowered.serial + 1)


def test_a_pod_that_is_not_in_sync_goes_at_once() -> None:
    """Even while another one is away."""
    now = replace(state(0, in_sync=(0, 1)), replicas=(ZERO, ONE, TWO, THREE))

    assert asked(now, ZERO, ONE, TWO) == replace(now, replicas=(ZERO, ONE, TWO), serial=now.serial + 1)


def test_a_pod_that_is_in_sync_goes_only_while_all_who_stay_are_in_sync() -> None:
    now = state(0)
    away = state(0, in_sync=(0, 2))

    assert asked(now, ZERO, ONE) == replace(now, replicas=(ZERO, ONE), serial=now.serial + 1)
    assert asked(away, ZERO, ONE) is None


def test_one_that_is_in_sync_goes_after_the_other_and_the_leader_last() -> None:
    now = replace(state(0), min_in_sync=1)
    first = asked(now, TWO, least=1)
    assert first is not None
    assert first.replicas == (ZERO, TWO)
    assert asked(first, TWO, least=1) is None  # the leader has not taken it out yet

    taken = replace(first, in_sync=(first.in_sync[0], first.in_sync[2]))
    second = asked(taken, TWO, least=1)
    assert second is not None
    assert second.replicas == (TWO,)


def test_nothing_is_changed_before_anyone_has_led() -> None:
    assert asked(state(0, leader=None), ZERO, ONE, TWO, THREE) is None
    assert not removable(replace(state(0, leader=None), replicas=(ZERO, ONE), in_sync=()), TWO, knowing(state(0)))


def test_an_older_state_in_place_of_a_newer_one_is_left_alone() -> None:
    """Coordination's data was turned back: a change upon it might be believed by who knows no better (rule 19)."""
    now = replace(state(0, in_sync=(0, 1)), replicas=(ZERO, ONE))
    newer = replace(now, serial=now.serial + 1)

    pods = (ZERO, ONE, TWO)

    assert next_state(now, pods, pods, 2, knowing(newer)) is None
    assert not removable(now, TWO, knowing(newer))
    assert next_state(replace(now, generation=2), pods, pods, 2, knowing(newer)) is not None


def test_a_pod_may_be_deleted_when_it_is_neither_named_nor_in_sync() -> None:
    named, in_sync = state(0, in_sync=(0, 1)), replace(state(0), replicas=(ZERO, ONE))
    neither = replace(in_sync, in_sync=in_sync.in_sync[:2])

    assert not removable(named, TWO, knowing(named))
    assert not removable(in_sync, TWO, knowing(in_sync))
    assert removable(neither, TWO, knowing(neither))


def test_a_change_without_an_answer_is_settled_by_one_that_changes_nothing_before_a_pod_goes() -> None:
    """A compare-and-set on the state before comes too late then (rule 2)."""
    now = replace(state(0, in_sync=(0, 1)), replicas=(ZERO, ONE))
    asking = knowing(now).asks(now)

    assert not removable(now, TWO, asking)
    assert next_state(now, (ZERO, ONE), (ZERO, ONE, TWO), 2, asking) == replace(now, serial=now.serial + 1)
    assert next_state(now, (ZERO, ONE), (ZERO, ONE), 2, asking) is None  # nothing hangs on it
    assert removable(now, TWO, asking.answered())


def test_a_later_state_ends_the_doubt() -> None:
    now = replace(state(0, in_sync=(0, 1)), replicas=(ZERO, ONE))
    later = replace(now, serial=now.serial + 1)

    assert removable(later, TWO, knowing(now).asks(now).saw(later, (0, 0)))


def test_an_operator_that_begins_doubts_the_first_state_it_reads() -> None:
    """The one before may have ended in the middle of a change that names the pod again."""
    now = replace(state(0, in_sync=(0, 1)), replicas=(ZERO, ONE))
    begun = Memory.begin(now, (1, 0))

    assert not removable(now, TWO, begun)
    assert next_state(now, (ZERO, ONE), (ZERO, ONE, TWO), 2, begun) == replace(now, serial=now.serial + 1)


def test_an_operator_that_begins_knows_from_the_status_that_a_state_is_old() -> None:
    now = replace(state(0, in_sync=(0, 1)), replicas=(ZERO, ONE))
    begun = Memory.begin(now, (now.generation, now.serial + 1)).answered()

    assert not removable(now, TWO, begun)
    assert next_state(now, (ZERO, ONE, TWO), (ZERO, ONE, TWO), 2, begun) is None
