"""The store against a model, through crashes at any moment."""

import contextlib
from dataclasses import dataclass
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kvstore.batch import BatchHeader, Record, iter_batches, iter_records, read_header
from kvstore.errors import (
    BatchBoundaryError,
    CorruptionError,
    CutBelowCommitError,
    FormatVersionError,
    StoreError,
    StoreFailedError,
)
from kvstore.sessions import Sessions, session_key
from kvstore.store import Store
from tests.support.faulty_files import CrashError, FaultyFiles, Inode
from tests.unit.kvstore.support import DELETE, EPOCH, PUT, SESSION, batch, fold, open_store

KEYS = [b"a", b"b", b"key", b"a longer key"]
CLIENTS = [b"%016d" % i for i in range(2)]
records = st.one_of(
    st.builds(Record, st.just(PUT), st.sampled_from(KEYS), st.binary(max_size=60), st.integers(0, 2**63)),
    st.builds(Record, st.just(DELETE), st.sampled_from(KEYS), st.just(b""), st.integers(0, 2**63)),
    st.builds(Record, st.just(EPOCH), st.just(b""), st.just(b""), st.integers(0, 2**63)),
    st.builds(
        Record,
        st.just(SESSION),
        st.builds(session_key, st.sampled_from(CLIENTS), st.integers(0, 5)),
        st.binary(max_size=9),
        st.integers(0, 1 << 30),
    ),
)


@dataclass(frozen=True)
class ModelBatch:
    header: BatchHeader
    data: bytes
    records: list[Record]


class StoreMachine(RuleBasedStateMachine):
    """`batches` is all that was appended and not cut, whole; `durable` what must survive; `ever` what was committed."""

    store: Store

    def __init__(self) -> None:
        super().__init__()
        self.files = FaultyFiles()
        self.batches: list[ModelBatch] = []
        self.durable = 0
        self.committed = 0
        self.applied = 0
        self.ever = 0
        self.epoch = 1
        self.version = 0

    @initialize()
    def start(self) -> None:
        self.store = open_store(self.files, read_cache_bytes=1500)

    @property
    def end(self) -> int:
        return self.batches[-1].header.last if self.batches else 0

    def starts(self) -> tuple[tuple[int, int], ...]:
        starts: dict[int, int] = {}
        for b in self.batches:
            starts.setdefault(b.header.epoch, b.header.first)
        return tuple(starts.items())

    def _next_version(self, step: int) -> int:
        """Versions grow in the order of the log, as a leader gives them (rule 18)."""
        self.version += 1 + step % (1 << 50)
        return self.version

    # What the node does

    @rule(batches=st.lists(st.lists(records, min_size=1, max_size=4), min_size=1, max_size=3), new_epoch=st.booleans())
    def append(self, batches: list[list[Record]], new_epoch: bool) -> None:
        self.epoch += new_epoch
        data = b""
        for drawn in batches:
            content = [record._replace(version=self._next_version(record.version)) for record in drawn]
            commit = min(self.committed, self.durable)
            one = batch(self.end + 1, *content, epoch=self.epoch, commit=commit)
            self.batches.append(ModelBatch(read_header(one), one, list(iter_records(one))))
            data += one
        assert self.store.append(data) == (self.epoch, self.end)

    @rule()
    def flush(self) -> None:
        self.store.flush()
        self.durable = self.end

    @rule(share=st.floats(0, 1.2))
    def commit(self, share: float) -> None:
        index = int(share * self.end)
        self.committed = max(self.committed, min(index, self.end))
        self.applied = max(self.applied, min(index, self.durable))
        self.ever = max(self.ever, self.applied)
        assert self.store.commit(index) == self.applied

    @rule(share=st.floats(0, 1))
    def cut(self, share: float) -> None:
        after = int(share * self.end)
        if after < self.committed:
            with pytest.raises(CutBelowCommitError):
                self.store.cut(after)
            return
        if after not in {0, *(b.header.last for b in self.batches)}:
            with pytest.raises(BatchBoundaryError):
                self.store.cut(after)
            return
        assert self.store.cut(after).index == after
        self._forget_behind(after)

    def _forget_behind(self, after: int) -> None:
        self.batches = [b for b in self.batches if b.header.last <= after]
        self.durable = min(self.durable, after)

    @rule(draw=st.integers(0, 9))
    def wipe(self, draw: int) -> None:
        if draw == 0:
            self.store.wipe_for_rebuild()
            self._forget_all()

    def _forget_all(self) -> None:
        self._forget_behind(0)
        self.committed = self.applied = self.ever = 0

    @rule(steps=st.integers(1, 5))
    def maintain(self, steps: int) -> None:
        for _ in range(steps):
            self.store.maintain()

    @rule(share=st.floats(0, 1))
    def allow_purge(self, share: float) -> None:
        self.store.allow_purge(int(share * self.applied))

    @rule()
    def verify(self) -> None:
        self.store.verify()

    # What happens to it

    @rule()
    def close_and_open(self) -> None:
        self.store.close()
        self.durable = self.end
        self._open(self.end, self.end)

    @rule(seed=st.none() | st.integers(0, 2**32))
    def crash(self, seed: int | None) -> None:
        self._crash(seed, self.durable)

    @rule(seed=st.none() | st.integers(0, 2**32), step=st.integers(1, 8))
    def crash_in_flush(self, seed: int | None, step: int) -> None:
        self.files.crash_in = step
        with contextlib.suppress(StoreError):
            self.store.flush()
            self.durable = self.end
        self._crash(seed, self.durable)

    @precondition(lambda self: any(b.header.last >= self.committed for b in self.batches))
    @rule(seed=st.none() | st.integers(0, 2**32), step=st.integers(1, 8))
    def crash_in_cut(self, seed: int | None, step: int) -> None:
        after = next(b.header.last for b in self.batches if b.header.last >= self.committed)
        self.files.crash_in = step
        with contextlib.suppress(CrashError):
            self.store.cut(after)
            self._forget_behind(after)
        self._crash(seed, min(self.durable, after))

    @rule(seed=st.none() | st.integers(0, 2**32), step=st.integers(1, 25))
    def crash_in_maintenance(self, seed: int | None, step: int) -> None:
        self.files.crash_in = step
        with contextlib.suppress(CrashError):
            while self.store.maintain():
                pass
        self._crash(seed, self.durable)

    @rule(seed=st.none() | st.integers(0, 2**32), step=st.integers(1, 8))
    def crash_in_open(self, seed: int | None, step: int) -> None:
        self.files.crash(Random(seed) if seed is not None else None)
        self.files.crash_in = step
        with contextlib.suppress(CrashError):
            open_store(self.files)
        self._crash(seed, self.durable)

    @precondition(lambda self: self.store.end.index > self.durable)
    @rule(sync=st.booleans(), power=st.booleans(), seed=st.none() | st.integers(0, 2**32))
    def fail_in_flush(self, sync: bool, power: bool, seed: int | None) -> None:
        """A write that fails leaves what was durable; a sync that fails leaves nothing that may be counted on (rule 4)."""
        self.files.failing_syncs, self.files.failing_writes = sync, not sync
        with pytest.raises(StoreFailedError, match="Input/output error"):
            self.store.flush()
        with pytest.raises(StoreFailedError):
            self.store.get(KEYS[0])
        if power:
            self.files.crash(Random(seed) if seed is not None else None)
        else:
            self.files.stop()
        self.files.heal()
        if not sync:
            self._open(self.durable, self.end)
            return
        with pytest.raises(StoreFailedError, match="Open it with rebuild"):
            open_store(self.files)
        self.store = open_store(self.files, read_cache_bytes=1500, rebuild=True)
        self._forget_all()

    @rule(sync=st.booleans(), after=st.integers(0, 3))
    def fail_in_maintenance(self, sync: bool, after: int) -> None:
        """The log is as good as before, what was begun is begun anew."""
        for _ in range(after):
            self.store.maintain()
        self.files.failing_syncs, self.files.failing_writes = sync, not sync
        with contextlib.suppress(OSError):
            self.store.maintain()
        self.files.heal()

    @rule(share=st.floats(0, 0.999), which=st.floats(0, 0.999), bit=st.none() | st.integers(0, 7), start=st.booleans())
    def damage(self, share: float, which: float, bit: int | None, start: bool) -> None:
        """A place that can't be read, or reads wrongly, gives an error by name or does not matter."""
        image = self.files.snapshot()
        found = sorted(path for path, inode in self.files.seen.items() if inode.data)
        path = found[int(which * len(found))]
        self.files.damage(path, int(share * len(self.files.seen[path].data)), bit)
        with contextlib.suppress(CorruptionError, FormatVersionError):  # at a start all damage is that
            store = self._opened_again() if start else self.store
            with contextlib.suppress(OSError):
                self._use(store)
        self.files.stop()
        self.files.seen = {p: Inode(bytearray(data), data) for p, data in image.items()}
        self.files.durable = dict(self.files.seen)
        self._open(self.durable, self.end)

    def _opened_again(self) -> Store:
        self.files.stop()
        store = open_store(self.files, read_cache_bytes=1500)
        assert store.torn_bytes or store.end.index >= self.durable
        return store

    def _use(self, store: Store) -> None:
        """All reads there are: what they give was written."""
        if store.commit(self.applied) == self.applied:
            expected = fold(r for b in self.batches for r in b.records if r.index <= self.applied)
            for key in KEYS:
                assert store.get(key) == expected.get(key)
        written = {r for b in self.batches for r in b.records}
        position = 0
        while data := store.read(position, 200):
            for header, one in iter_batches(data):
                assert set(iter_records(one)) <= written
                position = header.last
        while store.maintain():
            pass
        for _ in range(store.segments):
            store.verify()

    def _crash(self, seed: int | None, survives: int) -> None:
        self.files.crash(Random(seed) if seed is not None else None)
        self._open(survives, self.end)

    def _open(self, lowest: int, highest: int) -> None:
        self.store = open_store(self.files, read_cache_bytes=1500)
        end = self.store.end.index
        assert lowest <= end <= highest
        self._forget_behind(end)
        assert self.end == end, "the log ends at a batch's end"
        self.durable = end
        self.committed = self.applied = self.store.applied
        assert max((b.header.commit for b in self.batches), default=0) <= self.applied <= max(self.ever, self.told)
        assert self.applied >= self.store.horizon

    @property
    def told(self) -> int:
        """The commit index that batches tell of; the model's leader commits what a follower has not applied yet."""
        return max((b.header.commit for b in self.batches), default=0)

    # What must hold

    @invariant()
    def positions_agree(self) -> None:
        store = self.store
        last = self.batches[-1].header if self.batches else None
        assert store.end == ((last.epoch, last.last) if last else (0, 0))
        assert store.durable.index == self.durable
        assert store.applied == self.applied
        assert store.epochs == self.starts()
        assert store.commit_hint >= max((b.header.commit for b in self.batches), default=0)

    @invariant()
    def exactly_what_is_committed_is_visible(self) -> None:
        applied = [r for b in self.batches for r in b.records if r.index <= self.store.applied]
        expected = fold(applied)
        assert self.store.keys == len(expected)
        for key in KEYS:
            assert self.store.get(key) == expected.get(key)
        sessions = Sessions()
        for r in applied:
            if r.type == SESSION:
                sessions.apply(r.key, r.value, r.version)
        for client in CLIENTS:
            for sequence in range(6):
                assert self.store.sessions.lookup(client, sequence) == sessions.lookup(client, sequence)

    @invariant()
    def the_log_reads_back(self) -> None:
        """Byte by byte above the horizon, and below it nothing but what was written."""
        found: list[Record] = []
        position = 0
        whole = {b.data for b in self.batches}
        while data := self.store.read(position, 200):
            for header, one in iter_batches(data):
                assert header.first == position + 1
                assert one in whole or header.last <= self.store.horizon
                found += iter_records(one)
                position = header.last
        assert position == self.end
        written = [r for b in self.batches for r in b.records]
        assert set(found) <= set(written)
        self._folds_alike(found, written)

    def _folds_alike(self, found: list[Record], written: list[Record]) -> None:
        """Invariant 12, also for a copier that had the beginning whole: none of it comes back (13)."""
        horizon, purged_to = self.store.horizon, self.store.purged_to
        for index in range(horizon, self.end + 1):
            expected = fold(r for r in written if r.index <= index)
            assert fold(r for r in found if r.index <= index) == expected
        for after in {purged_to, horizon, (purged_to + horizon) // 2}:
            copy = [r for r in written if r.index <= after] + [r for r in found if r.index > after]
            assert fold(copy) == fold(written)

    @invariant()
    def versions_are_known(self) -> None:
        assert self.store.highest_version >= max((r.version for b in self.batches for r in b.records), default=0)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
