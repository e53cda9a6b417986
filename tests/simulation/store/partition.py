"""The replicas together: who leads, who is in sync, what is committed. A model that keeps replication's rules."""

from collections import Counter

from kvnode.core.parting import parting
from kvnode.core.types import EpochStart, Position
from kvstore.batch import RecordTuple, RecordType, encode_batch
from kvstore.store import Store
from tests.simulation.record import Record
from tests.simulation.schedule import Options
from tests.simulation.store.replica import GoneError, Replica
from tests.simulation.store.written import WrittenLog
from tests.simulation.timeline import Mark

VERSIONS_PER_MS = 1 << 22


class Partition:
    """All that outlives any store."""

    def __init__(self, options: Options, record: Record) -> None:
        self.options, self.record = options, record
        self.counts: Counter[str] = Counter()
        self.keys = [b"k%d" % i for i in range(options.keys)]
        sizes = _sizes(record)
        self.replicas = [Replica(self, f"p{i}", sizes) for i in range(options.replicas)]
        self.in_sync = list(self.replicas)
        self.named = list(self.replicas)  # who belongs to the partition: deletes wait for them (rule 16)
        self.leader: Replica | None = None
        self.run = ""  # the leader's
        self.epoch = 0
        self.committed = 0
        self.truth = WrittenLog()  # up to the batch that holds the commit index
        self.passed = 0
        self.copies: dict[
            str, int
        ] = {}  # by incarnation: `purges` of the leader's log when it began to copy it from empty

    def note(self, what: str) -> None:
        self.record.note("partition", what, Mark.COORDINATION, epoch=self.epoch, index=self.committed)

    # --- who is what -------------------------------------------------------------------------------------------------

    def others_are_good(self, replica: Replica) -> bool:
        return any(r.good for r in self.in_sync if r is not replica)

    def leaves(self, replica: Replica, why: str) -> None:
        """It is counted on no more."""
        if replica in self.in_sync:
            self.in_sync.remove(replica)
            self.note(f"{replica.pod} is out of sync: {why}")
        if self.leader is replica:
            self.leader = None

    def check_empty_may_be(self, replica: Replica) -> None:
        if replica in self.in_sync and self.committed:
            replica.fail(4, "is empty while it is in sync")

    def leading(self) -> Replica:
        """Who leads; the first in sync that can does, if nobody did. Raises GoneError when nobody can."""
        if self.leader is None or self.leader.store is None or self.leader.who != self.run:
            able = next((r for r in self.in_sync if r.store is not None and r.whole), None)
            if able is None:
                raise GoneError
            self.lead(able)
        assert self.leader is not None
        return self.leader

    def lead(self, replica: Replica) -> None:
        """A new epoch, which begins with a record of its own."""
        self.epoch += 1
        self.leader, self.run, self.copies = replica, replica.who, {}
        for each in self.replicas:
            each.following, each.acked = "", 0
        replica.acked = replica.held.durable
        self.note(f"{replica.who} leads epoch {self.epoch}")
        batch = self.truth.batches[-1] if self.truth.batches else None
        if batch is not None and replica.held.log.holding(batch.last) is not batch:
            replica.fail(4, f"was in sync and has not all that is committed, to {self.committed}")
        self.propose([(RecordType.EPOCH, b"", b"")])

    # --- the log -----------------------------------------------------------------------------------------------------

    def propose(self, *batches: list[tuple[RecordType, bytes, bytes]]) -> None:
        """The leader appends."""
        leader = self.leading()
        assert leader.store is not None
        log = leader.held.log
        version = max(leader.store.highest_version, int(self.record.now * 1000) * VERSIONS_PER_MS)
        data, added = b"", WrittenLog()
        added.batches = list(log.batches[-1:])
        for records in batches:
            first = added.end[1] + 1
            numbered: list[RecordTuple] = []
            for kind, key, value in records:
                version += 1
                numbered.append((int(kind), key, value, version, first + len(numbered)))
            commit = min(leader.held.applied, first - 1)
            one = encode_batch(self.epoch, first, commit, numbered)
            added.add(one)
            data += one
        new = added.batches[-len(batches) :]
        leader.do("appends", lambda store: store.append(data))
        log.batches += new
        leader.note(f"appends {', '.join(_describe(b.records) for b in new)}")

    def feed(self, follower: Replica, piece: int) -> None:
        """The leader sends the follower what it lacks, as its store gives it out."""
        leader = self.leading()
        if follower is leader or follower.store is None:
            return
        if follower.following != self.run:
            self._meet(leader, follower)
        after, held = follower.held.log.end[1], follower.held
        if after == leader.held.log.end[1]:
            return
        before, data, horizon, purged_to, purges = leader.do(
            "reads its log", lambda s: (s.purges, s.read(after, piece), s.horizon, s.purged_to, s.purges)
        )
        if not after:
            self.copies[follower.incarnation] = purges if purges == before else -1
        if after and after < purged_to and not 0 <= purges == self.copies.get(follower.incarnation):  # rule 16
            self.leaves(follower, "it may have what was deleted")
            self.counts["copies begun anew"] += 1
            follower.wipe()
            return
        if after < horizon:  # rule 14
            follower.inherit(horizon, purged_to)
        end = follower.do("appends what the leader sent", lambda s: s.append(data))
        held.log.copy(leader.held.log, end.index)
        follower.note(f"appends {after + 1}..{end.index} of {leader.who}'s log")

    def _meet(self, leader: Replica, follower: Replica) -> None:
        """Cut what the leader's log has not (rule 13)."""
        at = parting(*_position(leader), *_position(follower)).index
        log, theirs = follower.held.log, leader.held.log
        same = max((b.last for b, other in zip(log.batches, theirs.batches, strict=False) if b is other), default=0)
        if at != same:
            follower.fail(3, f"by their epochs it is as {leader.who} to {at}; it is to {same}")
        if at < follower.held.known:
            follower.fail(9, f"{leader.who} has not what is committed here: to {follower.held.known}, but to {at}")
        if at < log.end[1]:
            follower.cut(at)
        follower.following = self.run
        follower.acked = follower.held.durable

    def acknowledge(self, replica: Replica) -> None:
        """After a flush, to whom it follows."""
        if self.run in (replica.following, replica.who):
            replica.acked = replica.held.durable

    def commit(self, *, upto: float = 1.0) -> None:
        """What everybody in sync has durably; the leader perhaps goes only a part of the way there."""
        leader = self.leading()
        reached = min(r.acked for r in self.in_sync)
        index = leader.held.known + int(upto * (reached - leader.held.known))
        if index > self.committed:
            self.committed = index
            number = leader.held.log.count(index - 1)
            self.truth.batches = leader.held.log.batches[: number + 1]
        leader.commit(index)

    def follow_commit(self, follower: Replica) -> None:
        """A follower is told how far the leader is, though it may not have all of that on its disk yet."""
        leader = self.leading()
        if follower.following == self.run:
            follower.commit(leader.held.known)

    def join(self, replica: Replica) -> None:
        """Who has everything is in sync."""
        able = replica.following == self.run and replica.store is not None and replica.good and replica in self.named
        if able and replica not in self.in_sync and replica.whole and replica.acked >= self.committed:
            self.in_sync.append(replica)
            self.note(f"{replica.pod} is in sync")

    def tell_passed(self) -> int:
        """How far every replica of the partition has its log (rule 16)."""
        self.passed = max(self.passed, min(self.committed, *(r.acked for r in self.named)))
        return self.passed


def _position(replica: Replica) -> tuple[list[EpochStart], Position]:
    store = replica.store
    assert isinstance(store, Store)
    return [EpochStart(e, f) for e, f in store.epochs], Position(store.end.epoch, store.end.index)


def _sizes(record: Record) -> dict[str, int]:
    rng = record.stream("sizes")
    return {
        "segment_bytes": rng.choice([250, 400, 1000]),
        "preallocate_bytes": rng.choice([0, 0, 100, 1 << 20]),
        "read_cache_bytes": rng.choice([0, 1500]),
        "record_cache_bytes": rng.choice([0, 0, 500]),
        "tombstone_ms": rng.choice([0, 0, 500]),
        "compaction_bytes_per_second": 0,
        "compaction_reserve_bytes": 0,
        "ballast_bytes": record.stream("ballast").choice([0, 3000]),
    }


def _describe(records: tuple[RecordTuple, ...]) -> str:
    words = {RecordType.EPOCH: "the epoch's first", RecordType.SESSION: "a session"}
    told = [
        words.get(RecordType(r[0])) or f"{'put' if r[0] == RecordType.PUT else 'delete'} {r[1].decode()}"
        for r in records
    ]
    return f"{records[0][4]}: {', '.join(told)}"
