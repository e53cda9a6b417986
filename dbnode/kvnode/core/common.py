"""What every role of a replica has: its log's positions, what it has synced, the newest state it knows."""

from dataclasses import dataclass, field, replace

from kvcoord.contract import PartitionState, ReplicaId
from kvnode.core.doubt import Doubt, Loss
from kvnode.core.effects import Committed, CompareAndSet, Cut, Effect, Inherit, Persist, ReadState, Write
from kvnode.core.types import Batch, Config, EpochStart, Meta, Position


@dataclass(slots=True)
class Attempt:
    """A compare-and-set that is not settled: until a higher version is read or it is won, it is "maybe" (rule 2)."""

    expected_version: int
    state: PartitionState
    asked: bool = True  # a question is out
    retry_at: float = 0.0


@dataclass(slots=True)
class Common:
    """The part of a replica that outlives its roles. Indices of records; `out` gathers the effects of one step."""

    config: Config
    meta: Meta
    end: Position
    durable: int
    commit: int  # committed and durable here, so applied by the shell
    epochs: list[EpochStart]
    horizon: int = 0  # inherited from a compacted log: below it this one is a prefix of nothing (rule 14)
    purged_to: int = 0  # inherited as well, in this run
    passed: int = 0  # every replica of the partition has its log durably up to here (rule 16)
    out: list[Effect] = field(default_factory=list)
    doubt: Doubt = field(default_factory=Doubt)

    @property
    def state(self) -> PartitionState | None:
        return self.meta.state

    @property
    def replica(self) -> ReplicaId:
        return self.config.me.replica

    @property
    def in_sync(self) -> bool:
        """Whether the newest state that this replica knows names it in sync."""
        return self.state is not None and self.replica in self.state.in_sync

    @property
    def stopped(self) -> bool:
        """Whether coordination was turned back: another may lead by what it shows, so a leader serves nothing (rule 19)."""
        return self.doubt.lost is Loss.OLDER

    @property
    def settled(self) -> bool:
        """Whether all of the log is durable."""
        return self.durable == self.end.index

    @property
    def whole(self) -> bool:
        """Whether what is committed here is a state that ever was (rule 14)."""
        return self.commit >= self.horizon

    def inherit(self, horizon: int, purged_to: int) -> None:
        """The next batches come from a log that was compacted: synced before they are."""
        if horizon > self.horizon or purged_to > self.purged_to:
            self.horizon = max(self.horizon, horizon)
            self.purged_to = max(self.purged_to, purged_to)
            self.emit(Inherit(self.horizon, self.purged_to))

    def emit(self, effect: Effect) -> None:
        """Add to this step's effects."""
        self.out.append(effect)

    def persist_state(self, state: PartitionState, version: int) -> None:
        """Sync a newer state before acting on it (rule 19)."""
        claims = (state.leader.run,) if state.leader and state.leader.run in self.meta.claims else ()
        self.meta = replace(self.meta, state=state, state_version=version, tried=None, claims=claims)
        self.emit(Persist(self.meta))

    def persist_claim(self) -> None:
        """Sync that this run claims, before it does: whatever becomes of it, the disk knows (rule 17)."""
        run = self.config.me.run
        if run not in self.meta.claims:
            self.meta = replace(self.meta, claims=(*self.meta.claims, run))
            self.emit(Persist(self.meta))

    def names_as_leader(self, state: PartitionState) -> bool:
        """Whether a state is led by this replica, in whatever run."""
        return state.leader is not None and state.leader.replica == self.replica

    @property
    def outlived(self) -> bool:
        """Whether the state is led by a run of this replica of which its disk knows nothing: the disk is an old copy."""
        leader = self.state.leader if self.state is not None else None
        return leader is not None and leader.replica == self.replica and leader.run not in self.meta.claims

    def persist_tried(self, state: PartitionState) -> None:
        """Sync a state that adds replicas before it is tried: should it be done without our knowing, a rebuild knows."""
        self.meta = replace(self.meta, tried=state)
        self.emit(Persist(self.meta))

    def note_state(self, state: PartitionState, version: int) -> None:
        """Know a newer state without a disk to sync it to; nothing but being rebuilt may follow from it."""
        self.meta = replace(self.meta, state=state, state_version=version)

    def accept_epoch(self, epoch: int) -> None:
        """Sync the highest epoch accepted before it is first used (rule 3)."""
        if epoch > self.meta.accepted_epoch:
            self.meta = replace(self.meta, accepted_epoch=epoch)
            self.emit(Persist(self.meta))

    def append(self, batch: Batch) -> None:
        """Take a batch that adjoins the end into the log."""
        if not self.epochs or self.epochs[-1].epoch != batch.epoch:
            self.epochs.append(EpochStart(batch.epoch, batch.first))
        self.end = batch.end
        self.emit(Write(batch))

    def cut(self, after: Position) -> None:
        """Remove what is after a position that is not below the commit index."""
        assert after.index >= self.commit, (after, self.commit)
        assert self.settled, "cutting while writes are under way"
        while self.epochs and self.epochs[-1].first > after.index:
            self.epochs.pop()
        self.end = after
        self.durable = after.index
        self.emit(Cut(after))

    def commit_to(self, index: int, *, enough: bool) -> None:
        """Move the commit index forward, as far as the own log is durable."""
        index = min(index, self.durable)
        if index > self.commit:
            self.commit = index
            self.emit(Committed(index, enough))

    def ask(self, attempt: Attempt) -> None:
        """Try a compare-and-set, the first time or again."""
        attempt.asked = True
        self.emit(CompareAndSet(attempt.expected_version, attempt.state))

    def ask_again_when_due(self, attempt: Attempt, now: float) -> None:
        """A compare-and-set without an answer is tried again as it was, and the state read: either may settle it."""
        if not attempt.asked and now >= attempt.retry_at and not self.doubt.active:
            self.ask(attempt)
            self.emit(ReadState())
