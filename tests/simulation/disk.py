"""A disk that loses what was not synced.

A batch is first in the process's memory, then in the page cache, then durable. Killing the process loses the first
kind, losing power also the second: any prefix of what was not synced may survive, and its last batch may be torn.
The meta file is replaced atomically and synced before anything else happens (`Persist`).
"""

from bisect import bisect_right
from dataclasses import dataclass
from random import Random

from kvcoord.contract import ReplicaId
from kvnode.core.types import START, Batch, EpochStart, LogView, Meta, Position
from kvstore.batch import Record, iter_records, read_header


@dataclass(frozen=True, slots=True)
class Payload:
    """What a batch's bytes mean: its records, and the commit index known when it was made."""

    records: tuple[Record, ...]
    commit: int


class Payloads:
    """The contents of every batch ever seen, by its bytes, so that each is decoded once."""

    def __init__(self) -> None:
        self._known: dict[bytes, Payload] = {}

    def of(self, batch: Batch) -> Payload:
        known = self._known.get(batch.data)
        if known is None:
            known = Payload(tuple(iter_records(batch.data)), read_header(batch.data).commit)
            self._known[batch.data] = known
        return known


@dataclass(frozen=True, slots=True)
class DiskCopy:
    """What was durable when a copy of a disk was made."""

    log: tuple[Batch, ...]
    meta: Meta


class Disk:
    """One incarnation of one pod's volume."""

    def __init__(self, replica: ReplicaId, payloads: Payloads) -> None:
        self.replica = replica
        self.payloads = payloads
        self.meta = Meta()
        self.destroyed = False
        self.doubtful = False  # destroyed, unless a start finds it well
        self.unmet = False  # an old copy in sync, whose lack no leader has seen yet
        self.wiped = False  # to be rebuilt under another incarnation
        self.taken_away = False  # with its machine, which nobody counts on
        self.log: list[Batch] = []
        self.firsts: list[int] = []
        self.cached = 0  # so many batches are in the page cache
        self.synced = 0  # so many are durable
        self.flushing = 0  # so many will be when the flush under way ends
        self.torn = False
        self.horizon = 0  # below it the log is compacted
        self.purged_to = 0  # deletes up to here may be gone

    def append(self, batch: Batch) -> None:
        self.log.append(batch)
        self.firsts.append(batch.first)

    @property
    def end(self) -> Position:
        return self.log[-1].end if self.log else START

    @property
    def durable(self) -> Position:
        return self.log[self.synced - 1].end if self.synced else START

    def place(self, index: int) -> int:
        """Where in `log` the batch that holds this index is; -1 for index 0."""
        return bisect_right(self.firsts, index) - 1

    def epoch_at(self, index: int, *, durable: bool = False) -> int | None:
        """The epoch that wrote the record at this index; None when it is not here (or not durably)."""
        place = self.place(index)
        if place < 0 or self.log[place].last < index or (durable and place >= self.synced):
            return None
        return self.log[place].epoch

    def batches_after(self, index: int, most: int) -> tuple[Batch, ...]:
        """Whole batches that follow this index, of those that have left the process's memory."""
        start = self.place(index) + 1
        return tuple(self.log[start : min(start + most, self.cached)])

    # --- the life of bytes -------------------------------------------------------------------------------------------

    def begin_flush(self) -> int:
        """Write everything appended so far; give the number to end the flush with."""
        self.flushing = len(self.log)
        return self.flushing

    def end_flush(self, flushed: int) -> Position:
        self.synced = self.cached = flushed
        self.flushing = 0
        return self.durable

    def cut(self, after: int) -> None:
        self._keep(self.place(after) + 1)
        self.synced = self.cached = len(self.log)

    def _keep(self, batches: int) -> None:
        del self.log[batches:], self.firsts[batches:]
        self.cached, self.synced = min(self.cached, batches), min(self.synced, batches)
        self.flushing = 0

    def kill(self, rng: Random) -> None:
        """The process dies; of a write that was under way some bytes have reached the page cache."""
        if self.flushing > self.cached:
            self.cached = rng.randint(self.cached, self.flushing)
        self._keep(self.cached)

    def power_off(self, rng: Random) -> None:
        """The machine dies, too."""
        self.kill(rng)
        keep = rng.randint(self.synced, self.cached)
        self.torn = keep < self.cached and rng.random() < 0.5
        self._keep(keep)
        self.cached = keep

    def restore(self, batches: int) -> None:
        """So many batches were found at a start; all of them are durable then."""
        self._keep(batches)
        self.cached = self.synced = batches

    def copy(self) -> DiskCopy:
        """What is durable now."""
        return DiskCopy(tuple(self.log[: self.synced]), self.meta)

    def image(self) -> "Disk":
        """Another disk with what is durable on this one now."""
        found = Disk(self.replica, self.payloads)
        found.put_back(self.copy())
        return found

    def put_back(self, copy: DiskCopy) -> None:
        """A copy takes this disk's place."""
        self.log, self.meta = list(copy.log), copy.meta
        self.firsts = [batch.first for batch in self.log]
        self.cached = self.synced = len(self.log)
        self.flushing, self.torn = 0, False

    def start(self) -> LogView:
        """Read the log at start; all of it is synced before anybody hears of it (rule 3)."""
        self.cached = self.synced = len(self.log)
        commit, epochs = 0, list[EpochStart]()
        for batch in self.log:
            commit = max(commit, self.payloads.of(batch).commit)
            if not epochs or epochs[-1].epoch != batch.epoch:
                epochs.append(EpochStart(batch.epoch, batch.first))
        torn, self.torn = self.torn, False
        return LogView(self.end, min(max(commit, self.horizon), self.end.index), tuple(epochs), torn, self.horizon)

    def inherit(self, horizon: int, purged_to: int) -> None:
        """What is appended from here on comes from a log that was compacted."""
        self.horizon, self.purged_to = max(self.horizon, horizon), max(self.purged_to, purged_to)
