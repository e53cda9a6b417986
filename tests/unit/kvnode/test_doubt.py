"""When coordination's data counts as lost or turned back (rule 19)."""

from dataclasses import replace

from kvcoord.contract import PartitionState
from kvnode.core.doubt import CONFIRM, PATIENCE, Doubt, Loss
from kvnode.core.effects import ReadState
from kvnode.core.events import StateSeen

KNOWN = PartitionState(3, None, (), ("a",), 1, serial=7)
OLDER = replace(KNOWN, serial=6)


def asked(doubt: Doubt, now: float) -> int:
    """The number of the read that is asked for now."""
    (effect,) = doubt.tick(now)
    assert isinstance(effect, ReadState)
    return effect.number


def test_an_answer_that_was_overtaken_is_no_loss() -> None:
    """A read that began later shows what is known: nothing happened."""
    doubt = Doubt()
    assert not doubt.newer(KNOWN, StateSeen(OLDER, 5), 0.0)
    assert doubt.active
    assert not doubt.newer(KNOWN, StateSeen(KNOWN, 6, asked(doubt, 0.0)), 0.1)
    assert not doubt.active
    assert doubt.tick(10.0) == []


def test_reads_that_go_on_showing_an_older_state_are_a_loss() -> None:
    """Not before they did so for a while."""
    doubt = Doubt()
    doubt.newer(KNOWN, StateSeen(OLDER, 5), 0.0)
    doubt.newer(KNOWN, StateSeen(OLDER, 5, asked(doubt, 0.0)), CONFIRM / 2)
    assert doubt.lost is None
    doubt.newer(KNOWN, StateSeen(OLDER, 5, asked(doubt, CONFIRM)), CONFIRM)
    assert doubt.lost is Loss.OLDER


def test_a_state_that_is_gone_is_a_loss_of_another_kind() -> None:
    """Nobody can act on it."""
    doubt = Doubt()
    doubt.newer(KNOWN, StateSeen(None, -1), 0.0)
    doubt.newer(KNOWN, StateSeen(None, -1, asked(doubt, 0.0)), CONFIRM)
    assert doubt.lost is Loss.MISSING


def test_another_state_of_the_same_age_is_a_loss() -> None:
    """Someone went on from an older copy."""
    doubt = Doubt()
    other = replace(KNOWN, epoch=4)
    doubt.newer(KNOWN, StateSeen(other, 6), 0.0)
    doubt.newer(KNOWN, StateSeen(other, 6, asked(doubt, 0.0)), CONFIRM)
    assert doubt.lost is Loss.OLDER


def test_only_an_answer_to_the_newest_read_settles_a_doubt() -> None:
    """What was on its way before the loss proves nothing."""
    doubt = Doubt()
    doubt.newer(KNOWN, StateSeen(None, -1), 0.0)
    first = asked(doubt, 0.0)
    second = asked(doubt, PATIENCE)
    doubt.newer(KNOWN, StateSeen(KNOWN, 6), PATIENCE)
    doubt.newer(KNOWN, StateSeen(KNOWN, 6, first), PATIENCE)
    assert doubt.active
    doubt.newer(KNOWN, StateSeen(KNOWN, 6, second), PATIENCE)
    assert not doubt.active


def test_a_newer_state_ends_a_loss() -> None:
    """It was put back, of a new generation, or by whom the doubt was wrong about."""
    doubt = Doubt()
    doubt.newer(KNOWN, StateSeen(None, -1), 0.0)
    doubt.newer(KNOWN, StateSeen(None, -1, asked(doubt, 0.0)), CONFIRM)
    assert doubt.newer(KNOWN, StateSeen(replace(OLDER, generation=2), 0), 5.0)
    assert (doubt.active, doubt.lost) == (False, None)
