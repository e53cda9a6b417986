"""The table of client batches' results, against a plain model."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from kvcommon.versions import pack_version
from kvstore.sessions import Expired, Sessions, session_key

A, B = b"a" * 16, b"b" * 16
BATCHES, WINDOW = 3, 10.0


def at(seconds: float) -> int:
    return pack_version(int(seconds * 1000), 7, 0)


def table(*rows: tuple[bytes, int, float]) -> Sessions:
    """Folded records of client, sequence and second."""
    sessions = Sessions(BATCHES, WINDOW)
    for client, sequence, second in rows:
        sessions.apply(session_key(client, sequence), b"result %d" % sequence, at(second))
    return sessions


def test_a_batch_done_is_known_with_its_result() -> None:
    sessions = table((A, 1, 0), (A, 2, 0))
    assert sessions.lookup(A, 1) == b"result 1"
    assert sessions.lookup(A, 3) is None
    assert sessions.lookup(B, 1) is None


def test_a_batch_too_many_later_ones_ago_has_expired() -> None:
    sessions = table(*((A, n, 0) for n in range(1, 6)))
    assert sessions.lookup(A, 2) == Expired(2)
    assert sessions.lookup(A, 0) == Expired(2), "it may have been done"
    assert sessions.lookup(A, 3) == b"result 3"
    assert sessions.lookup(A, 6) is None


def test_sequences_may_come_in_any_order() -> None:
    sessions = table((A, 9, 0), (A, 1, 0), (A, 2, 0), (A, 3, 0), (A, 4, 0))
    assert sessions.lookup(A, 9) == Expired(9)
    assert sessions.lookup(A, 5) == Expired(9)
    assert sessions.lookup(A, 2) == b"result 2"


def test_clients_not_seen_for_the_window_are_forgotten() -> None:
    sessions = table((A, 1, 0), (B, 1, 9), (B, 2, 10))
    assert len(sessions) == 2
    sessions.apply(session_key(B, 3), b"", at(10.001))
    assert (len(sessions), sessions.lookup(A, 1), sessions.lookup(B, 1)) == (1, None, b"result 1")


def test_a_client_seen_again_stays() -> None:
    sessions = table((A, 1, 0), (B, 1, 1), (A, 2, 10), (B, 2, 11.5))
    assert len(sessions) == 2
    assert sessions.lookup(A, 1) == b"result 1"


def test_time_does_not_go_back() -> None:
    assert table((A, 1, 0), (B, 1, 100), (A, 1, 5)).lookup(A, 1) == b"result 1"


def test_cleared_it_knows_nothing() -> None:
    sessions = table((A, 1, 100))
    sessions.clear()
    assert len(sessions) == 0
    sessions.apply(session_key(A, 1), b"", at(1))
    assert sessions.lookup(A, 1) == b""


def test_a_wrong_key_is_refused() -> None:
    with pytest.raises(ValueError, match="15 bytes"):
        session_key(b"a" * 15, 1)
    with pytest.raises(ValueError, match="3 bytes"):
        Sessions().apply(b"abc", b"", 0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([A, B]), st.integers(0, 12), st.floats(0, 8)), min_size=0, max_size=60))
def test_it_is_the_fold_that_the_definition_says(rows: list[tuple[bytes, int, float]]) -> None:
    now, told = 0.0, []
    for client, sequence, pause in rows:
        now += pause if pause > 6 else 0
        told.append((client, sequence, now))
    sessions = table(*told)
    for client in (A, B):
        kept: list[int] = []
        evicted, seen = -1, None
        for c, sequence, when in told:
            if seen is not None and int(seen * 1000) < int(when * 1000) - WINDOW * 1000:
                kept, evicted, seen = [], -1, None
            if c != client:
                continue
            seen = when
            if sequence not in kept:
                kept.append(sequence)
            if len(kept) > BATCHES:
                evicted = max(evicted, kept.pop(0))
        for sequence in range(14):
            expected = (
                b"result %d" % sequence if sequence in kept else Expired(evicted) if sequence <= evicted else None
            )
            assert sessions.lookup(client, sequence) == expected
