"""Hint and horizon files: what they hold comes back, and nothing else is taken for one."""

import struct
from array import array
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from kvstore.batch import encode_records
from kvstore.errors import CorruptionError, FormatVersionError
from kvstore.hint import Hint, decode_hint, encode_hint
from kvstore.horizon import HORIZON, WHOLE, Horizon, read_horizon, write_horizon
from kvstore.sealed import HEADER_BYTES, seal
from kvstore.sessions import KEY_BYTES
from tests.support.faulty_files import FaultyFiles, Inode
from tests.unit.kvstore.support import DATA, PUT, SESSION

PATH = Path("/data/00000000000000000005.hint")
U16, U64 = st.integers(0, 2**16 - 1), st.integers(0, 2**64 - 1)


def a_hint(keys: list[bytes], sessions: bytes = b"") -> Hint:
    lengths, places = array("H", map(len, keys)), array("Q", [24 << 21 | 30] * len(keys))
    return Hint(5, 9, 4000, 3, 12, 99, [(1, 5), (2, 8)], [(5, 36), (8, 999)], lengths, places, b"".join(keys), sessions)


def sessions(*results: bytes) -> bytes:
    return encode_records(5, [(SESSION, bytes(KEY_BYTES), r, 1, 0) for r in results])[0]


@settings(deadline=None)
@given(st.lists(st.binary(max_size=20)), st.lists(st.binary(max_size=50)))
def test_a_hint_comes_back_as_it_was_written(keys: list[bytes], results: list[bytes]) -> None:
    hint = a_hint(keys, sessions(*results))
    found = decode_hint(encode_hint(hint), PATH)
    assert found == hint
    assert found.keys() == keys


def test_keys_of_one_length_and_of_many_come_back() -> None:
    for keys in ([b"a1", b"b2"], [b"", b""], [b"", b"x"], [b"key"], []):
        assert decode_hint(encode_hint(a_hint(keys)), PATH).keys() == keys


def test_every_byte_of_a_hint_flipped_in_turn_is_noticed() -> None:
    good = encode_hint(a_hint([b"one", b"two"], sessions(b"result")))
    for at in range(len(good)):
        with pytest.raises((CorruptionError, FormatVersionError)):
            decode_hint(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :], PATH)
        with pytest.raises(CorruptionError):
            decode_hint(good[:at], PATH)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_whatever_is_sealed_as_a_hint_is_read_or_refused_by_name(content: bytes) -> None:
    try:
        decode_hint(seal(b"KVC-HINT", content), PATH)
    except CorruptionError as e:
        assert str(PATH) in str(e)  # noqa: PT017 - nothing need be raised


@settings(deadline=None)
@given(st.lists(U64, min_size=6, max_size=6), st.lists(st.integers(0, 2**32 - 1), min_size=5, max_size=5), st.binary())
def test_impossible_numbers_in_a_hint_are_refused_without_making_what_they_ask_for(
    numbers: list[int], counts: list[int], rest: bytes
) -> None:
    content = struct.pack("<6Q5I", *numbers, *counts) + rest
    try:
        hint = decode_hint(seal(b"KVC-HINT", content), PATH)
    except CorruptionError:
        return
    assert hint.first <= hint.last <= hint.as_of
    assert sum(hint.lengths) == len(hint.names)


@pytest.mark.parametrize(
    "wrong",
    [
        {"first": 4},
        {"last": 4},
        {"as_of": 8},
        {"size": 35},
        {"size": 1 << 28},
        {"epochs": []},
        {"epochs": [(2, 5), (1, 8)]},
        {"epochs": [(1, 5), (2, 10)]},
        {"names": b"one"},
        {"places": array("Q", [4000 << 21])},
    ],
)
def test_a_hint_that_contradicts_itself_is_refused(wrong: dict[str, object]) -> None:
    fields = {name: getattr(a_hint([b"k"]), name) for name in Hint.__dataclass_fields__}
    with pytest.raises(CorruptionError, match="an impossible hint"):
        decode_hint(encode_hint(Hint(**fields | wrong)), PATH)


@pytest.mark.parametrize("cut", [1, KEY_BYTES, KEY_BYTES + 20])
def test_session_records_that_are_none_are_refused(cut: int) -> None:
    for wrong in (
        sessions(b"result")[:-cut],
        sessions(b"") + encode_records(6, [(PUT, bytes(KEY_BYTES), b"", 1, 0)])[0],
    ):
        with pytest.raises(CorruptionError, match="no session record"):
            decode_hint(encode_hint(a_hint([], wrong)), PATH)


# The horizon


def test_a_horizon_only_grows() -> None:
    assert Horizon(7, 3).joined(Horizon(5, 4)) == (7, 4)


def test_a_directory_without_a_horizon_is_whole() -> None:
    assert read_horizon(FaultyFiles(), DATA) == WHOLE


def test_a_horizon_comes_back_and_every_flipped_byte_is_noticed() -> None:
    files = FaultyFiles()
    write_horizon(files, DATA, Horizon(9, 4))
    files.crash()
    assert read_horizon(files, DATA) == Horizon(9, 4)
    for at in range(len(files.read(DATA / HORIZON))):
        files.flip(DATA / HORIZON, at)
        with pytest.raises((CorruptionError, FormatVersionError)):
            read_horizon(files, DATA)
        files.flip(DATA / HORIZON, at)


@pytest.mark.parametrize("content", [b"", bytes(15), bytes(17), struct.pack("<QQ", 3, 4)])
def test_an_impossible_horizon_is_refused(content: bytes) -> None:
    files = FaultyFiles()
    files.seen[DATA / HORIZON] = Inode(bytearray(seal(b"KVC-HRZN", content)))
    with pytest.raises(CorruptionError, match=f"offset {HEADER_BYTES}"):
        read_horizon(files, DATA)
