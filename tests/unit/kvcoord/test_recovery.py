"""Which state is put back when coordination's data was lost (rule 19)."""

from dataclasses import replace

import pytest

from kvcoord.contract import PartitionState, ReplicaId, RunId
from kvcoord.recovery import Witness, chosen, newest_state, rebuilt

A, B, C = (ReplicaId(pod, "1") for pod in "abc")
OLD = PartitionState(3, RunId(A, "a1"), (A, B, C), ("a", "b", "c"), 2, serial=7)
NEW = replace(OLD, in_sync=(A, B), serial=8)


def says(replica: ReplicaId, state: PartitionState | None, *, lost: bool = True, **more: object) -> Witness:
    return replace(Witness(replica, f"{replica.pod}1", lost, state), **more)  # type: ignore[arg-type]


def test_the_newest_state_comes_back_in_the_next_generation() -> None:
    """Leader, epoch and in-sync set are as they were; serials go on."""
    state = rebuilt([says(A, NEW), says(B, OLD)], missing=True)
    assert state == replace(NEW, serial=9, generation=2)


def test_who_is_not_in_sync_is_not_waited_for() -> None:
    """C was taken out before."""
    assert isinstance(rebuilt([says(A, NEW), says(B, NEW)], missing=True), PartitionState)


def test_every_member_of_the_in_sync_set_must_answer() -> None:
    """B may know that A was taken out."""
    said = rebuilt([says(A, NEW), says(C, OLD)], missing=True)
    assert "b/1 may know a newer state than serial 8" in str(said)


def test_another_incarnation_is_not_the_member() -> None:
    """Its disk knows nothing of what the one before acted on."""
    said = rebuilt([says(A, NEW), says(ReplicaId("b", "2"), None)], missing=True)
    assert "b/1" in str(said)


def test_one_that_was_in_sync_before_may_know_the_newest() -> None:
    """Then its in-sync set counts."""
    newest = replace(NEW, epoch=4, leader=RunId(C, "c1"), in_sync=(C,), serial=10)
    assert rebuilt([says(A, NEW), says(B, NEW), says(C, newest)], missing=True) == replace(
        newest, serial=11, generation=2
    )


def test_whoever_an_unsettled_addition_names_must_answer() -> None:
    """It may have been done, and C have led since."""
    leader = says(A, NEW, tried=replace(OLD, serial=9))
    assert "c/1" in str(rebuilt([leader, says(B, NEW)], missing=True))
    assert rebuilt([leader, says(B, NEW), says(C, OLD)], missing=True) == replace(NEW, serial=9, generation=2)


def test_an_addition_that_was_settled_asks_nobody() -> None:
    """A newer state is known."""
    leader = says(A, NEW, tried=OLD)
    assert isinstance(rebuilt([leader, says(B, NEW)], missing=True), PartitionState)


def test_a_member_that_sees_no_loss_uses_other_data() -> None:
    """It acts on what it sees there."""
    assert "b/1 sees no loss" in str(rebuilt([says(A, NEW), says(B, NEW, lost=False)], missing=True))


def test_a_member_that_has_never_known_a_state_misses_none() -> None:
    """It was cut off from the birth until the loss."""
    state = rebuilt([says(A, NEW), says(B, None, lost=False)], missing=True)
    assert state == replace(NEW, serial=9, generation=2)


def test_over_an_older_state_who_knows_no_better_need_not_see_a_loss() -> None:
    """To it nothing has changed."""
    state = rebuilt([says(A, NEW), says(B, OLD, lost=False)], missing=False)
    assert state == replace(NEW, serial=9, generation=2)


def test_a_newer_generation_is_newer_than_any_serial() -> None:
    """A rebuild outranks what was before it."""
    later = replace(OLD, generation=2, serial=8)
    assert newest_state([says(A, later), says(B, replace(NEW, serial=99))]) == later


def test_two_states_of_the_same_age_are_for_a_person() -> None:
    """Someone went on from an older copy."""
    assert "a person must choose" in str(rebuilt([says(A, NEW), says(B, replace(NEW, epoch=4))], missing=True))


def test_nobody_knows_anything() -> None:
    """All disks are empty."""
    assert "no replica" in str(rebuilt([says(A, None)], missing=True))


def test_a_person_chooses_one_replica() -> None:
    """It alone is in sync, above every epoch that anyone knows, and nobody leads yet."""
    state = chosen([says(A, NEW), says(C, OLD, accepted_epoch=6)], "c", None)
    assert state == replace(NEW, epoch=6, leader=None, in_sync=(C,), serial=9, generation=2)


def test_a_choice_outranks_what_is_there() -> None:
    """All that followed the state there are of an older generation."""
    state = chosen([says(A, NEW)], "a", replace(NEW, generation=3, serial=20, epoch=9))
    assert isinstance(state, PartitionState)
    assert (state.generation, state.serial, state.epoch) == (4, 21, 9)


@pytest.mark.parametrize(("pod", "said"), [("b", "b does not answer"), ("a", "no replica that answers knows a state")])
def test_a_choice_that_can_not_be(pod: str, said: str) -> None:
    """With the reason."""
    assert said in str(chosen([says(A, None)], pod, None))
