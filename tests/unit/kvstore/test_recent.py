"""The newest batches in memory."""

import pytest

from kvstore.batch import iter_batches, iter_records, read_header
from kvstore.errors import BatchBoundaryError
from kvstore.log import LogBatch
from kvstore.recent import RecentBatches
from tests.unit.kvstore.support import batch, put

MADE = [batch(1 + 2 * i, put(b"a", bytes(100)), put(b"b", bytes(100))) for i in range(20)]


def recent(limit: int, durable: int) -> RecentBatches:
    batches = RecentBatches(limit)
    for data in MADE:
        batches.add(LogBatch(read_header(data), data), durable)
    return batches


def test_nothing_is_not_here() -> None:
    assert RecentBatches(100).read(0, 100) is None


def test_all_that_is_not_durable_stays() -> None:
    batches = recent(limit=1, durable=10)
    assert batches.read(9, 1 << 20) is None
    assert batches.read(10, 1 << 20) == b"".join(MADE[5:])


def test_durable_ones_stay_as_far_as_the_limit_goes() -> None:
    batches = recent(limit=4 * (len(MADE[0]) + 300), durable=40)
    assert batches.read(31, 1) is None
    assert batches.read(32, 1 << 20) == b"".join(MADE[16:])


@pytest.mark.parametrize("after", range(0, 40, 2))
def test_reading_begins_at_any_batch_and_ends_at_the_bound(after: int) -> None:
    batches = recent(1 << 20, 40)
    rest = MADE[after // 2 :]
    assert batches.read(after, 1) == rest[0]
    assert batches.read(after, 3 * len(MADE[0])) == b"".join(rest[:3])


def test_reading_from_inside_a_batch_is_refused() -> None:
    with pytest.raises(BatchBoundaryError, match=r"index 3 is inside the batch 3\.\.4"):
        recent(1 << 20, 40).read(3, 100)


def test_of_a_joined_batch_the_rest_is_given() -> None:
    """At or below the horizon: a copy of a compacted log has such batches (whole seed 3 of a mutant)."""
    batches = recent(1 << 20, 40)
    found = batches.read(3, 1 << 20, horizon=4)
    assert found is not None
    assert [r.index for data in iter_batches(found) for r in iter_records(data[1])] == list(range(4, 41))
    with pytest.raises(BatchBoundaryError):
        batches.read(5, 100, horizon=5)


def test_what_is_cut_is_gone() -> None:
    batches = recent(1 << 20, 40)
    batches.cut(10)
    assert batches.read(0, 1 << 20) == b"".join(MADE[:5])
    assert batches.read(10, 1 << 20) == b""
