"""Keys to slots."""

from hypothesis import given
from hypothesis import strategies as st

from kvcommon.slotmap import SlotMap
from kvcommon.slots import slot_of, slots_of

keys = st.lists(st.binary(max_size=9) | st.from_regex(rb"a?\{b?\}?c?", fullmatch=True), max_size=8)


@given(keys)
def test_slots_of_many_keys_are_those_of_each(many: list[bytes]) -> None:
    """With hash tags among them and without."""
    assert slots_of(many) == [slot_of(key) for key in many]


@given(keys, st.integers(1, 3))
def test_owners_are_those_of_the_slots(many: list[bytes], partitions: int) -> None:
    """Of a map with three partitions, two, and one that owns all."""
    slot_map = SlotMap.even(partitions)
    assert slot_map.owners_of(many) == [slot_map.owners[slot_of(key)] for key in many]
