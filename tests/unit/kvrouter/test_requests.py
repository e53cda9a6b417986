"""What the router refuses by itself, and how long it takes."""

import pytest

from kvclient.operations import ReadMode, ReadProfile
from kvcommon.versions import EPOCH_MS, pack_version
from kvproto.v1 import kv_pb2
from kvrouter.requests import (
    profile_of,
    seconds_to_answer,
    wrong_batch,
    wrong_key,
    wrong_observed,
    wrong_read,
    wrong_value,
)


@pytest.mark.parametrize(
    ("remaining", "seconds"),
    [(None, 10.0), (0.0, 10.0), (-1.0, 10.0), (5.0, 4.95), (0.1, 0.09), (30.0, 29.95)],
)
def test_the_router_answers_before_its_caller_gives_up(remaining: float | None, seconds: float) -> None:
    assert seconds_to_answer(remaining) == pytest.approx(seconds)


def test_the_read_mode_of_a_request_is_linearizable_unless_it_says_otherwise() -> None:
    assert profile_of(kv_pb2.GetRequest()) == ReadProfile(ReadMode.LINEARIZABLE, 0)
    bounded = kv_pb2.GetRequest(read_mode=kv_pb2.READ_MODE_BOUNDED, max_lag_ms=70)
    assert profile_of(bounded) == ReadProfile(ReadMode.BOUNDED, 70)
    assert profile_of(kv_pb2.GetRequest(read_mode=kv_pb2.READ_MODE_ANY, max_lag_ms=70)).max_lag_ms == 0


def test_a_read_mode_that_does_not_exist_is_named() -> None:
    assert "read_mode 9" in wrong_read(kv_pb2.GetRequest(read_mode=9))  # type: ignore[arg-type]
    assert wrong_read(kv_pb2.GetRequest()) == ""


@pytest.mark.parametrize(("length", "fits"), [(0, False), (1, True), (4096, True), (4097, False)])
def test_a_key_has_1_to_4096_bytes(length: int, fits: bool) -> None:
    assert (wrong_key(bytes(length)) == "") is fits


def test_a_value_has_at_most_1_mib() -> None:
    assert wrong_value(bytes(1 << 20)) == ""
    assert "1048577" in wrong_value(bytes((1 << 20) + 1))


def test_an_observed_version_may_be_a_second_ahead_and_no_more() -> None:
    now = 1_800_000_000_000
    assert wrong_observed(0, now) == ""
    assert wrong_observed(pack_version(now + 1000 - EPOCH_MS, 3, 5), now) == ""
    assert "ahead" in wrong_observed(pack_version(now + 1001 - EPOCH_MS, 3, 5), now)


def test_a_batch_has_at_most_4_mib() -> None:
    put = kv_pb2.Operation(kind=kv_pb2.OPERATION_KIND_PUT, key=b"k", value=bytes(1 << 20))
    assert wrong_batch(kv_pb2.BatchRequest(operations=[put] * 3)) == ""
    assert "bytes of keys and values" in wrong_batch(kv_pb2.BatchRequest(operations=[put] * 4))
