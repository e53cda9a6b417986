"""How fast disks are, as their leader sees it, and whose is too slow to lead.

The leader times its own writes until they are durable, and a follower's from the sending to the acknowledgement, network
included: so a leader that is slower than its followers is slower by its disk. Who is slow is judged against the fastest,
slowly and with hysteresis: a hand-over costs every client a moment.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kvcoord.contract import ReplicaId

NEVER = float("-inf")
SLOW = 4.0  # times the fastest replica's
NORMAL = 2.0  # times the fastest replica's, below which it is slow no longer
LEAST = 0.05  # seconds; nobody faster than that is slow
SUSTAINED = 10.0  # seconds that it must be so
RECENT = 3.0  # seconds after which a measurement says nothing of today
SAMPLES = 10
SETTLED = 30.0  # seconds of leading before any of this is a reason to hand over, and until the next try
JUDGED_EVERY = 1.0


@dataclass(slots=True)
class Pace:
    """An average of durations in seconds, the newest counting a tenth."""

    mean: float = 0.0
    samples: int = 0
    newest: float = NEVER

    def add(self, took: float, now: float) -> None:
        """Another measurement."""
        self.samples += 1
        self.mean += (took - self.mean) * max(0.1, 1 / self.samples)
        self.newest = now


@dataclass(slots=True)
class Paces:
    """All replicas of a partition during one leadership. `slow` has those that should not lead."""

    tried_at: float  # to hand over for a slow disk; at first the beginning of the leadership
    paces: dict[ReplicaId, Pace] = field(default_factory=dict)
    slow: set[ReplicaId] = field(default_factory=set)
    _since: dict[ReplicaId, float] = field(default_factory=dict)
    _judged_at: float = NEVER
    _own: deque[tuple[int, float]] = field(default_factory=deque)  # (last index, when) of own batches not durable yet

    def began(self, last: int, now: float) -> None:
        """The leader's own write of a batch that ends at this index."""
        self._own.append((last, now))

    def done(self, me: ReplicaId, durable: int, now: float) -> None:
        """The leader's own log is durable up to here."""
        while self._own and self._own[0][0] <= durable:
            self.add(me, now - self._own.popleft()[1], now)

    def hung(self, then: float, acked: Iterable[int]) -> bool:
        """Whether the leader's own log does not have what was written before `then`, though another's is durable so far."""
        return bool(self._own) and self._own[0][1] < then and any(index >= self._own[0][0] for index in acked)

    def should_hand_over(
        self, me: ReplicaId, in_sync: Sequence[ReplicaId], now: float, *, spared: bool = False
    ) -> bool:
        """Whether the leader's disk is slow and another's is not, or it is `spared`, not wanted where another leads as well.

        Says yes once in half a minute, and never before: who was told to go may not reach coordination.
        """
        self.judge(in_sync, now)
        slow = me in self.slow and not self.slow >= set(in_sync)
        if not (slow or spared) or now - self.tried_at < SETTLED:
            return False
        self.tried_at = now
        return True

    def add(self, replica: ReplicaId, took: float, now: float) -> None:
        """A write of this replica's became durable after so many seconds."""
        pace = self.paces.get(replica)
        if pace is None:
            pace = self.paces[replica] = Pace()
        pace.add(took, now)

    def judge(self, in_sync: Sequence[ReplicaId], now: float) -> None:
        """Look again at who is slow, once a second."""
        if now - self._judged_at < JUDGED_EVERY:
            return
        self._judged_at = now
        recent = {r: p.mean for r, p in self.paces.items() if p.samples >= SAMPLES and now - p.newest <= RECENT}
        fastest = min((recent[r] for r in in_sync if r in recent), default=None)
        self.slow.intersection_update(in_sync)
        for replica in in_sync:
            mean = recent.get(replica)
            if mean is None or fastest is None or mean <= max(LEAST, SLOW * fastest):
                self._since.pop(replica, None)
            elif now - self._since.setdefault(replica, now) >= SUSTAINED:
                self.slow.add(replica)
            if mean is not None and fastest is not None and mean <= max(LEAST, NORMAL * fastest):
                self.slow.discard(replica)

    def last(self, replicas: Sequence[ReplicaId]) -> tuple[ReplicaId, ...]:
        """The same replicas, those with slow disks at the end: they claim, and are handed leadership, last."""
        return tuple(sorted(replicas, key=lambda r: r in self.slow))
