"""The index of keys, and places packed into a number."""

import sys

import hypothesis.strategies as st
from hypothesis import given, settings

from kvstore.index.base import LENGTH_BITS, MAX_OFFSET, Index, pack_place, unpack_place
from kvstore.index.hash import HashIndex


@settings(deadline=None)
@given(st.integers(0, 1 << 30), st.integers(0, MAX_OFFSET), st.integers(0, (1 << LENGTH_BITS) - 1))
def test_a_place_comes_back_as_it_was_packed(segment: int, offset: int, length: int) -> None:
    assert unpack_place(pack_place(segment, offset, length)) == (segment, offset, length)


def test_places_in_256_gib_take_32_bytes() -> None:
    assert sys.getsizeof(pack_place(4095, MAX_OFFSET, (1 << LENGTH_BITS) - 1)) == 32


def test_the_newest_place_of_a_key_is_found() -> None:
    index: Index = HashIndex()
    index.apply({b"a": 1, b"b": 2}, 2)
    index.apply({b"a": 3, b"b": None, b"c": None}, 5)
    assert (index.get(b"a"), index.get(b"b"), index.get(b"c"), len(index)) == (3, None, None, 1)
    assert index.applied == 0, "it lives in memory"
    index.clear()
    assert (index.get(b"a"), len(index)) == (None, 0)
