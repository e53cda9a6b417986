"""The version clock: what it makes grows, and stays its partition's."""

from hypothesis import given
from hypothesis import strategies as st

from kvcommon.versions import EPOCH_MS, VersionClock, version_partition


@given(st.lists(st.tuples(st.integers(1, 4096), st.integers(0, 3)), min_size=1, max_size=8), st.integers(0, 1023))
def test_versions_taken_together_follow_each_other_and_all_before(steps: list[tuple[int, int]], partition: int) -> None:
    """None runs over into another partition's, however many are taken in one millisecond."""
    clock, wall, before = VersionClock(partition), EPOCH_MS + 1000, 0
    for count, later in steps:
        wall += later
        first = clock.take(count, wall)
        assert first > before
        before = clock.last
        assert before == first + count - 1
        assert version_partition(first) == version_partition(before) == partition
