"""What is sent again, as a table a reader can check by eye (rule 10)."""

import random

import pytest

from kvclient.retry import Backoff, Next, Seen, after_answer, classify
from kvproto.v1 import kv_pb2

F, R, U = Seen.FINAL, Seen.REFUSED, Seen.UNKNOWN

CODES = {
    kv_pb2.ERROR_CODE_UNSPECIFIED: F,
    kv_pb2.ERROR_CODE_INVALID_ARGUMENT: F,
    kv_pb2.ERROR_CODE_NOT_FOUND: F,
    kv_pb2.ERROR_CODE_ALREADY_EXISTS: F,
    kv_pb2.ERROR_CODE_VERSION_MISMATCH: F,
    kv_pb2.ERROR_CODE_NOT_LEADER: R,
    kv_pb2.ERROR_CODE_MOVED: R,
    kv_pb2.ERROR_CODE_UNAVAILABLE: R,
    kv_pb2.ERROR_CODE_TOO_FEW_REPLICAS: R,
    kv_pb2.ERROR_CODE_OUTCOME_UNKNOWN: U,
    kv_pb2.ERROR_CODE_RESOURCE_EXHAUSTED: R,
    kv_pb2.ERROR_CODE_DEADLINE_EXCEEDED: R,
    kv_pb2.ERROR_CODE_TOO_STALE: R,
    kv_pb2.ERROR_CODE_INTERNAL: F,
}


def test_every_error_code_is_classified() -> None:
    assert set(CODES) == set(kv_pb2.ErrorCode.values())
    assert {code: classify(code) for code in CODES} == CODES


#  what the answers say     writes maybe foreign   then
TABLE = [
    (F, True, False, False, Next.DONE),
    (F, True, True, True, Next.DONE),
    (F, False, False, False, Next.DONE),
    # Reads change nothing: again, gathered anew.
    (R, False, False, False, Next.REGATHER),
    (U, False, False, False, Next.REGATHER),
    (F | R | U, False, False, False, Next.REGATHER),
    # Certainly not applied at all: anew, or as it was when the pair is the caller's.
    (R, True, False, False, Next.REGATHER),
    (R, True, False, True, Next.REGATHER),
    # Refused now, but an earlier attempt may have got through: only as it was.
    (R, True, True, False, Next.RESEND),
    (R, True, True, True, Next.RESEND),
    # May have been applied: only as it was.
    (U, True, False, False, Next.RESEND),
    (U, True, True, True, Next.RESEND),
    (F | U, True, False, False, Next.RESEND),
    (R | U, True, False, False, Next.RESEND),
    (F | R | U, True, True, False, Next.RESEND),
    # Some done, some refused: the pair is used up, the refused ones need another, which only its owner can give.
    (F | R, True, False, False, Next.REGATHER),
    (F | R, True, False, True, Next.DELIVER),
    (F | R, True, True, False, Next.UNKNOWN),
    (F | R, True, True, True, Next.UNKNOWN),
]


@pytest.mark.parametrize(("seen", "writes", "maybe", "foreign", "then"), TABLE)
def test_what_becomes_of_a_batch(seen: Seen, writes: bool, maybe: bool, foreign: bool, then: Next) -> None:
    assert after_answer(seen, writes=writes, maybe=maybe, foreign=foreign) is then


def test_a_write_that_may_have_been_applied_never_gets_another_pair() -> None:
    for seen in (F, R, U, F | R, F | U, R | U, F | R | U):
        for foreign in (False, True):
            assert after_answer(seen, writes=True, maybe=True, foreign=foreign) is not Next.REGATHER
            if seen & U:
                assert after_answer(seen, writes=True, maybe=False, foreign=foreign) is Next.RESEND


def test_the_first_wait_is_short_and_all_are_bounded_and_jittered() -> None:
    backoff, rng = Backoff(first=0.02, most=0.2), random.Random(1)
    first = [backoff.delay(1, rng) for _ in range(100)]
    assert 0.01 <= min(first) < max(first) <= 0.02
    assert all(0.1 <= backoff.delay(n, rng) <= 0.2 for n in (5, 50, 5000))
