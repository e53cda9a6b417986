"""What an answer means for what is sent next: pure, one table.

Rule 10 of the replication protocol: a write is sent again only when it is certain that it was not applied, or as the
same batch under the same (client id, sequence), which the partition applies at most once.
"""

import enum
import random
from dataclasses import dataclass
from typing import Final

from kvproto.v1 import kv_pb2


class Seen(enum.Flag):
    """What one or more results say, joined by `|`."""

    NOTHING = 0
    FINAL = 1  # a record, or an error that trying again would not change
    REFUSED = 2  # certainly not applied by this attempt
    UNKNOWN = 4  # may have been applied


class Next(enum.Enum):
    """What becomes of a batch after an answer, or after it was lost."""

    DONE = "every operation has its final answer"
    REGATHER = "its unanswered operations go back to the queue, for another batch under another pair"
    RESEND = "it is sent again as it was, under the same pair"
    DELIVER = "its callers get the refusals as they are"
    UNKNOWN = "the outcome of what has no final answer can't be found out any more"


_REFUSALS: Final = frozenset(
    {
        kv_pb2.ERROR_CODE_NOT_LEADER,
        kv_pb2.ERROR_CODE_MOVED,
        kv_pb2.ERROR_CODE_UNAVAILABLE,
        kv_pb2.ERROR_CODE_TOO_FEW_REPLICAS,
        kv_pb2.ERROR_CODE_RESOURCE_EXHAUSTED,
        kv_pb2.ERROR_CODE_DEADLINE_EXCEEDED,
        kv_pb2.ERROR_CODE_TOO_STALE,
    }
)


def classify(code: int) -> Seen:
    """What an error code says of one operation."""
    if code == kv_pb2.ERROR_CODE_OUTCOME_UNKNOWN:
        return Seen.UNKNOWN
    return Seen.REFUSED if code in _REFUSALS else Seen.FINAL


def after_answer(seen: Seen, *, writes: bool, maybe: bool, foreign: bool) -> Next:
    """What becomes of a batch.

    `writes`: it has any. `maybe`: an earlier attempt of the same pair was lost, so "refused" is certain of the latest
    attempt only. `foreign`: its pair is the caller's, so no other pair may stand for its operations.
    """
    if not seen & (Seen.REFUSED | Seen.UNKNOWN):
        return Next.DONE
    if not writes:
        return Next.REGATHER
    if seen & Seen.UNKNOWN:
        return Next.RESEND
    if seen & Seen.FINAL:  # the partition has used the pair up; a repeat would get the same refusals
        if maybe:
            return Next.UNKNOWN
        return Next.DELIVER if foreign else Next.REGATHER
    return Next.RESEND if maybe else Next.REGATHER


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before trying again, in seconds: doubling, with jitter (full above the first half)."""

    first: float = 0.02
    most: float = 0.2

    def delay(self, failures: int, rng: random.Random) -> float:
        """The wait after this many failures in a row (from 1)."""
        ceiling = min(self.most, self.first * 2 ** min(failures - 1, 16))
        return float(ceiling * (0.5 + 0.5 * rng.random()))
