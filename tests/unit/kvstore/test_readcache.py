"""Which of the records read stay in memory."""

from kvstore.batch import Record
from kvstore.readcache import ReadCache
from tests.unit.kvstore.support import put

BYTES = 4096 + 300  # what one record of 4 KiB counts for


def record(number: int) -> Record:
    return put(b"k", bytes(4096), number)


def found(cache: ReadCache, place: int) -> Record | None:
    return cache.young.get(place) or cache.revive(place)


def test_what_was_added_is_found() -> None:
    """By its place."""
    cache = ReadCache(8 * BYTES)
    cache.add(5, record(1))
    assert found(cache, 5) == record(1)
    assert found(cache, 6) is None


def test_it_holds_what_it_may_and_no_more() -> None:
    """The newest."""
    cache = ReadCache(8 * BYTES)
    for place in range(100):
        cache.add(place, record(place))
    there = [place for place in range(100) if found(cache, place)]
    assert 4 <= len(there) <= 10
    assert there[-1] == 99


def test_what_is_asked_for_now_and_then_stays() -> None:
    """However much else comes by."""
    cache = ReadCache(8 * BYTES)
    cache.add(0, record(0))
    for place in range(1, 100):
        assert found(cache, 0) == record(0)
        cache.add(place, record(place))


def test_a_record_that_would_take_all_the_room_is_not_kept() -> None:
    """Nor anything, without room."""
    for limit in (BYTES, 0):
        cache = ReadCache(limit)
        cache.add(0, record(0))
        assert found(cache, 0) is None
