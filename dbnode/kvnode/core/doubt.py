"""Whether coordination's data can be trusted: a state that is older than one's own, or gone, was lost or turned back (rule 19).

An older state alone is no proof: answers overtake each other. It is one when reads that were begun after the newer state
was known go on showing it. Until then nothing new is asked of coordination; from then on the replica has stopped:
it claims nothing and changes no in-sync set, until a newer state than its own is there.
"""

from enum import Enum

from kvcoord.contract import PartitionState
from kvnode.core.effects import Effect, ReadState
from kvnode.core.events import StateSeen

CONFIRM = 1.0  # seconds that reads must go on showing it
ASK_AGAIN = 0.25
PATIENCE = 3.0  # for an answer to a read


class Loss(Enum):
    """What became of the partition's state in coordination."""

    MISSING = "missing"  # nobody can act on it: a leader goes on under its lease
    OLDER = "older"  # someone who knows no better may act on it: a leader stops serving, too


class Doubt:
    """What is suspected, and since when."""

    def __init__(self) -> None:
        self.since: float | None = None
        self.lost: Loss | None = None
        self._number = 0  # of the newest read that asks
        self._ask_at = 0.0

    @property
    def active(self) -> bool:
        """Whether there is any doubt; then nothing is asked of coordination but to be read."""
        return self.since is not None

    def newer(self, known: PartitionState, event: StateSeen, now: float) -> bool:
        """Take a sighting; whether it is a newer state than the known one, to be acted on."""
        if event.state is not None and event.state.age > known.age:
            self._end()
            return True
        answers = event.read == self._number != 0
        if event.state == known:
            if answers:
                self._end()
            return False
        if self.since is None:
            self.since, self._ask_at = now, now
        elif answers:
            self._ask_at = now + ASK_AGAIN
            if now - self.since >= CONFIRM:
                self.lost = Loss.MISSING if event.state is None else Loss.OLDER
        return False

    def tick(self, now: float) -> list[Effect]:
        """Read again, while in doubt."""
        if self.since is None or now < self._ask_at:
            return []
        self._number += 1
        self._ask_at = now + PATIENCE
        return [ReadState(self._number)]

    def _end(self) -> None:
        self.since = self.lost = None
        self._number += 1  # a read that is under way began before this
