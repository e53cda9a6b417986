"""What the demonstration says is what it saw."""

from io import StringIO
from itertools import islice

from kvcommon.slotmap import SlotMap
from kvcommon.slots import slot_of
from kvlocal.demo import keys_of, longest_pause
from kvlocal.screen import Screen


def test_the_pause_is_the_longest_one_that_ends_after_the_kill() -> None:
    """Longer ones before it are none of its doing."""
    assert longest_pause([0.0, 5.0, 6.0, 8.5, 9.0], since=6.1) == 2.5


def test_without_an_answer_after_the_kill_there_is_no_pause_to_tell() -> None:
    """The demonstration waits for one, so this is never said."""
    assert longest_pause([0.0, 1.0], since=2.0) == 0.0


def test_load_stays_with_one_partition() -> None:
    """Otherwise its pause would hide behind others' answers."""
    slot_map = SlotMap.even(3)

    keys = list(islice(keys_of(1, slot_map, "k"), 20))

    assert {slot_map.owners[slot_of(key)] for key in keys} == {1}
    assert len(set(keys)) == 20


def test_a_table_is_as_wide_as_its_widest_cells() -> None:
    """And has no trailing spaces."""
    out = StringIO()

    Screen(out).table(("A", "B"), [("long cell", "x"), ("y", "z")])

    assert out.getvalue() == "  A          B\n  long cell  x\n  y          z\n"
