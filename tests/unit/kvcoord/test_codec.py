import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvcommon.slotmap import SlotMap
from kvcoord import codec
from kvcoord.codec import DamagedValueError, NewerFormatError
from kvcoord.contract import Death, PartitionState, ReplicaId, RunId
from tests.unit.kvcoord.contract_suite import IDENTITY, STATE, led_by, member

GOLDEN = Path(__file__).parent / "golden" / "values.txt"
DEATHS = {
    "c-p0-0": Death("c-p0-0", "run1", "containerd://1", 3),
    "c-p0-1": Death("c-p0-1", "run2", "containerd://2", 4),
}
MEMBER = member(
    dns_name="c-p0-0.c-p0",
    boot_id="boot",
    container_id="containerd://1",
    empty=True,
    pipeline_address="10.0.0.1:7402",
    redis_address="10.0.0.1:6379",
)
VALUES: dict[str, tuple[Any, Callable[[Any], bytes], Callable[[bytes], Any]]] = {
    "identity": (IDENTITY, codec.encode_identity, codec.decode_identity),
    "map": (SlotMap.even(2, version=4), codec.encode_map, codec.decode_map),
    "partition-at-birth": (STATE, codec.encode_partition, codec.decode_partition),
    "partition-led": (led_by("run1"), codec.encode_partition, codec.decode_partition),
    "member": (MEMBER, codec.encode_member, codec.decode_member),
    "deaths": (DEATHS, codec.encode_deaths, codec.decode_deaths),
    "run": ("run1", codec.encode_run, codec.decode_run),
}


_ENDLESS = b'{"format":1,"version":1,"ranges":[[0,1000000000000,0]]}'  # a list of its slots takes all memory


def golden() -> dict[str, bytes]:
    lines = [line for line in GOLDEN.read_text().splitlines() if line and not line.startswith("#")]
    return {name: data.encode() for name, data in zip(lines[::2], lines[1::2], strict=True)}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_written_as_it_always_was(name: str) -> None:
    value, encode, _ = VALUES[name]
    assert encode(value) == golden()[name]


@pytest.mark.parametrize("name", VALUES)
def test_what_was_ever_written_is_read(name: str) -> None:
    value, _, decode = VALUES[name]
    assert decode(golden()[name]) == value


def test_every_golden_value_is_tried() -> None:
    assert set(golden()) == set(VALUES)


@pytest.mark.parametrize("name", VALUES)
def test_a_newer_format_is_refused_by_name(name: str) -> None:
    newer = {**json.loads(golden()[name]), "format": 2}
    with pytest.raises(NewerFormatError, match="has format 2 and this program reads up to 1"):
        VALUES[name][2](json.dumps(newer).encode())


@pytest.mark.parametrize("name", VALUES)
def test_a_field_that_is_not_known_is_ignored(name: str) -> None:
    more = {**json.loads(golden()[name]), "colour": "blue"}
    assert VALUES[name][2](json.dumps(more).encode()) == VALUES[name][0]


@pytest.mark.parametrize(
    "field", ["epoch", "leader", "in_sync", "replicas", "min_in_sync", "serial", "generation", "format"]
)
def test_a_partition_state_without_one_of_its_fields_is_damaged(field: str) -> None:
    fields = json.loads(golden()["partition-led"])
    del fields[field]
    with pytest.raises(DamagedValueError, match=field):
        codec.decode_partition(json.dumps(fields).encode())


@pytest.mark.parametrize("name", VALUES)
@given(data=st.data())
def test_damaged_data_is_a_named_error_or_a_value_of_the_right_type(name: str, data: st.DataObject) -> None:
    value, _, decode = VALUES[name]
    good = golden()[name]
    cut = data.draw(st.integers(0, len(good) - 1))
    junk = data.draw(st.binary(max_size=3))
    try:
        decoded = decode(good[:cut] + junk + good[cut + len(junk) :])
    except (DamagedValueError, NewerFormatError):
        return
    assert type(decoded) is type(value)


@pytest.mark.parametrize(
    "text",
    [b"", b"null", b"[]", b'{"format":true}', b'{"format":1,"version":1,"ranges":[[0,5]]}', _ENDLESS, b"\xff\xfe"],
)
def test_what_is_no_map_is_damaged(text: bytes) -> None:
    with pytest.raises(DamagedValueError, match="the slot map in the coordination data is damaged"):
        codec.decode_map(text)


def test_a_map_that_does_not_cover_every_slot_is_damaged() -> None:
    with pytest.raises(DamagedValueError, match="covers 6 of 16384"):
        codec.decode_map(b'{"format":1,"version":1,"ranges":[[0,5,0]]}')


replicas = st.builds(ReplicaId, st.text(), st.text())
states = st.builds(
    PartitionState,
    epoch=st.integers(0),
    leader=st.none() | st.builds(RunId, replicas, st.text()),
    in_sync=st.lists(replicas).map(tuple),
    replicas=st.lists(st.text()).map(tuple),
    min_in_sync=st.integers(0),
    serial=st.integers(0),
    generation=st.integers(0),
)


@given(states)
def test_any_partition_state_comes_back(state: PartitionState) -> None:
    assert codec.decode_partition(codec.encode_partition(state)) == state
