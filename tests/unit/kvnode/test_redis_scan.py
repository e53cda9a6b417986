"""SCAN's guarantee: a key that is there all the while is returned at least once."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvnode.doors import redis_scan
from kvnode.doors.redis_scan import MAX_SCANS, MIN_SCANS, Scans
from kvresp.scan import Scan


class Index:
    """Keys that come and go."""

    def __init__(self, *keys: bytes) -> None:
        self.keys = dict.fromkeys(keys)

    def scans(self, seed: int = 0) -> Scans:
        return Scans(lambda: list(self.keys), self.keys.__contains__, random.Random(seed).randrange)


def numbered(count: int) -> list[bytes]:
    return [b"%d" % i for i in range(count)]


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(1, 20), st.lists(st.integers(0, 120), max_size=40), st.booleans())
def test_what_is_there_all_the_while_is_returned(count: int, page: int, changes: list[int], restart: bool) -> None:
    """While keys come and go, and the process that knew the cursor is replaced once."""
    index = Index(*numbered(count))
    scans, seen, stayed = index.scans(), set[bytes](), set(index.keys)
    cursor, steps = 0, 0
    while True:
        cursor, keys = scans.page(Scan(cursor, page))
        seen.update(keys)
        if cursor == 0:
            break
        steps += 1
        if restart and steps == 2:
            scans = index.scans(seed=1)
        if changes:
            key = b"%d" % changes.pop()
            if key in index.keys:
                del index.keys[key]
                stayed.discard(key)
            else:
                index.keys[key] = None
    assert stayed <= seen


def test_pages_have_as_many_keys_as_asked_for() -> None:
    """And nothing twice when nothing changes."""
    scans = Index(*numbered(25)).scans()
    pages, cursor = [], 0
    while True:
        cursor, keys = scans.page(Scan(cursor, 10))
        pages.append(keys)
        if not cursor:
            break
    assert [len(p) for p in pages] == [10, 10, 5]
    assert len({k for p in pages for k in p}) == 25


def test_a_page_can_be_asked_for_again() -> None:
    """A reply may be lost on its way."""
    scans = Index(*numbered(30)).scans()
    cursor, first = scans.page(Scan(0, 10))
    _, second = scans.page(Scan(cursor, 10))
    _, again = scans.page(Scan(cursor, 10))
    assert again == second != first


def test_deleted_keys_are_not_shown() -> None:
    """Though they were there when the scan began."""
    index = Index(*numbered(20))
    scans = index.scans()
    cursor, first = scans.page(Scan(0, 10))
    index.keys.clear()
    assert len(first) == 10
    assert scans.page(Scan(cursor, 10)) == (0, [])


def test_scans_are_bounded_and_a_forgotten_one_begins_anew() -> None:
    """Clients that never finish cost a bounded number of lists."""
    scans = Index(*numbered(20)).scans()
    cursor, _ = scans.page(Scan(0, 10))
    for _ in range(MAX_SCANS):
        scans.page(Scan(0, 10))
    assert len(scans._running) == MAX_SCANS
    after, keys = scans.page(Scan(cursor, 10))
    assert (after != 0, keys) == (True, numbered(10))


def test_cursors_stay_below_two_to_the_53() -> None:
    """A router adds the partition to them, and some clients' numbers are floats."""
    scans = Index(*numbered(30)).scans()
    scans._number = lambda n: n - 1
    assert scans.page(Scan(0, 10))[0] < 1 << 53


def test_long_lists_are_kept_for_few_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their memory is bounded, whatever the number of keys."""
    monkeypatch.setattr(redis_scan, "MAX_LISTED", 100)
    scans = Index(*numbered(20)).scans()
    for _ in range(9):
        scans.page(Scan(0, 10))
    assert len(scans._running) == 5
    scans = Index(*numbered(1000)).scans()
    for _ in range(9):
        scans.page(Scan(0, 10))
    assert len(scans._running) == MIN_SCANS
