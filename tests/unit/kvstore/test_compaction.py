"""Compaction and hints: what goes, what stays, and a crash at every step of the way."""

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from kvstore.batch import Record, iter_batches, iter_records
from kvstore.errors import CorruptionError, CutBelowCommitError, StoreFailedError
from kvstore.hint import hint_path
from kvstore.horizon import HORIZON
from kvstore.index.hash import HashIndex
from kvstore.sessions import Expired, session_key
from kvstore.store import Store
from tests.support.faulty_files import CrashError, FaultyFiles
from tests.unit.kvstore.support import DATA, DELETE, EPOCH, PUT, SESSION, batch, delete, fold, maintain, put, write
from tests.unit.kvstore.support import open_store as open_any

MS = 1 << 22  # a millisecond, in versions


def open_store(files: FaultyFiles, **changes: Any) -> Store:
    """A store that reads its log from the files, not from memory."""
    return open_any(files, **{"read_cache_bytes": 1} | changes)


def overwrite(store: Store, count: int = 60, keys: int = 5) -> dict[bytes, Record]:
    """Puts of a few keys over and over; what they are then."""
    history = []
    for i in range(store.end.index + 1, store.end.index + 1 + count):
        record = Record(PUT, b"k%d" % (i % keys), b"value %d" % i, i, i)
        write(store, record)
        history.append(record)
    return fold(history)


def records(store: Store) -> Iterator[Record]:
    after = 0
    while data := store.read(after, 1 << 20):
        for header, one in iter_batches(data):
            assert header.first == after + 1, "batches adjoin"
            yield from iter_records(one)
            after = header.last


def logs(files: FaultyFiles) -> list[str]:
    return [n for n in files.list(DATA) if n.endswith(".log")]


def state(store: Store, keys: int = 5) -> dict[bytes, Record]:
    found = {b"k%d" % i: store.get(b"k%d" % i) for i in range(keys)}
    return {k: r for k, r in found.items() if r is not None}


def test_what_was_superseded_goes_and_the_rest_keeps_its_index() -> None:
    files = FaultyFiles()
    store = open_store(files)
    expected = overwrite(store)
    before = store.log_bytes
    maintain(store)
    assert state(store) == expected
    assert store.log_bytes < before / 3
    assert store.progress.reclaimed_bytes == before - store.log_bytes
    assert (store.end, store.applied) == ((1, 60), 60)
    assert fold(records(store)) == expected
    assert store.horizon == 60
    store.close()
    store = open_store(files)
    assert state(store) == expected
    assert (store.end, store.applied, store.horizon, store.epochs) == ((1, 60), 60, 60, ((1, 1),))


def test_only_sealed_segments_that_are_committed_as_a_whole_are_touched() -> None:
    files = FaultyFiles()
    store = open_store(files)
    overwrite(store, 20)
    for _ in range(20):
        write(store, put(b"k0", b"not yet"), commit=False)
    first = [n for n in logs(files) if int(n[:20]) > 20]
    maintain(store)
    assert logs(files)[-len(first) :] == first
    assert store.horizon == 20
    assert store.get(b"k0") == Record(PUT, b"k0", b"value 20", 20, 20)


def test_small_segments_become_one() -> None:
    files = FaultyFiles()
    store = open_store(files, segment_bytes=200)
    for i in range(40):
        write(store, put(b"key %d" % i, b"v"))
    store.close()
    before = len(logs(files))
    store = open_store(files, segment_bytes=2000)
    store.commit(40)
    maintain(store)
    assert len(logs(files)) < before / 4
    assert store.keys == 40
    assert [r.index for r in records(store)] == list(range(1, 41))


def test_nothing_is_done_where_there_is_nothing_to_gain() -> None:
    files = FaultyFiles()
    store = open_store(files)
    for i in range(9):
        write(store, put(b"%d" % i, bytes(100)))
    before = logs(files)
    maintain(store)
    assert logs(files) == before
    assert (store.progress.compactions, store.progress.hints, store.horizon) == (0, len(before) - 1, 0)


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_a_crash_at_any_operation_leaves_the_same_state(seed: int | None) -> None:
    step = 0
    while True:
        files = FaultyFiles()
        store = open_store(files, compaction=False)
        expected = overwrite(store)
        maintain(store)  # hints
        store.close()
        store = open_store(files)
        step += 1
        files.crash_in = step
        try:
            maintain(store)
        except CrashError:
            files.crash(None if seed is None else Random(seed * 1000 + step))
        else:
            break
        store = open_store(files)
        store.commit(60)
        assert state(store) == expected, step
        assert (store.end, store.torn_bytes) == ((1, 60), 0)
        maintain(store)
        assert state(store) == expected, step
        assert fold(records(store)) == expected
        assert not [n for n in files.list(DATA) if n.endswith(".tmp")]
        store.close()
        assert state(open_store(files)) == expected
    assert step > 20


# Deletes


def filler(store: Store, count: int = 12, at: int = 0) -> None:
    """Records that are all superseded by the next, so that there is something to compact."""
    for i in range(count):
        write(store, put(b"filler", bytes(40), at + i))


def test_a_delete_stays_until_every_replica_has_passed_it() -> None:
    files = FaultyFiles()
    store = open_store(files)
    write(store, put(b"gone", b"1", 1))
    write(store, delete(b"gone", 2))
    filler(store, at=3)
    maintain(store)
    assert [r.type for r in records(store) if r.key == b"gone"] == [DELETE]
    assert store.purged_to == 0
    store.allow_purge(1)
    filler(store, at=20)
    maintain(store)
    assert DELETE in {r.type for r in records(store)}
    store.allow_purge(2)
    filler(store, at=40)
    maintain(store)
    assert DELETE not in {r.type for r in records(store)}
    assert (store.purged_to, store.purges, store.get(b"gone")) == (2, 1, None)
    store.close()
    store = open_store(files)
    assert (store.purged_to, store.get(b"gone")) == (2, None)


def test_a_delete_stays_for_its_time() -> None:
    store = open_store(FaultyFiles(), tombstone_ms=1000)
    store.allow_purge(1 << 60)
    write(store, delete(b"gone", 5 * MS))
    filler(store, at=6 * MS)
    maintain(store)
    assert DELETE in {r.type for r in records(store)}
    filler(store, at=1006 * MS)
    maintain(store)
    assert DELETE not in {r.type for r in records(store)}


def test_of_several_deletes_of_a_key_the_newest_stays() -> None:
    store = open_store(FaultyFiles(), segment_bytes=1000)
    for i in range(30):
        write(store, put(b"lock", b"held", 2 * i))
        write(store, delete(b"lock", 2 * i + 1))
    filler(store, 40, at=100)
    maintain(store)
    assert [r.index for r in records(store) if r.type == DELETE] == [60]


def test_a_delete_stays_while_an_older_segment_holds_what_it_deleted() -> None:
    files = FaultyFiles()
    store = open_store(files, compaction_garbage=0.9)
    for i in range(4):
        write(store, put(b"old %d" % i, bytes(60), i))
    maintain(store)
    store.allow_purge(1 << 60)
    write(store, delete(b"old 0", 10))
    filler(store, 30, at=11)
    maintain(store)
    kept = [(r.type, r.key) for r in records(store) if r.key == b"old 0"]
    assert kept == [(PUT, b"old 0"), (DELETE, b"old 0")], "too little of the first segment is garbage"
    store.close()
    store = open_store(files, compaction_garbage=0.1)
    store.allow_purge(1 << 60)
    store.commit(store.end.index)
    filler(store, at=50)
    maintain(store)
    assert not [r for r in records(store) if r.key == b"old 0"]
    assert (store.get(b"old 0"), store.get(b"old 1")) == (None, Record(PUT, b"old 1", bytes(60), 1, 2))


def test_deletes_that_pile_up_behind_a_segment_that_is_not_clean_have_it_cleaned() -> None:
    store = open_store(FaultyFiles())
    store.allow_purge(1 << 60)
    for i in range(4):
        write(store, put(b"stays %d" % i, bytes(60), i))
    maintain(store)
    for i in range(100):
        write(store, delete(b"never was there %d" % i, 10 + i))
    filler(store, at=200)
    maintain(store)
    assert len([r for r in records(store) if r.type == DELETE]) < 20
    assert store.keys == 5


# Sessions, epochs


def test_sessions_are_kept_within_their_window_and_evictions_are_remembered() -> None:
    files = FaultyFiles()
    store = open_store(files, segment_bytes=2000)
    busy, idle, gone = b"b" * 16, b"i" * 16, b"g" * 16
    minute = 60_000 * MS
    write(store, Record(SESSION, session_key(gone, 1), b"gone", 1))
    write(store, Record(SESSION, session_key(idle, 7), b"idle", 5 * minute))
    for i in range(1100):
        write(store, Record(SESSION, session_key(busy, i), b"result %d" % i, 12 * minute + i))
    filler(store, 100, at=12 * minute + 2000)
    maintain(store)
    kept = [r.key for r in records(store) if r.type == SESSION]
    assert len(kept) < 1050
    assert session_key(gone, 1) not in kept
    store.close()
    store = open_store(files)
    store.commit(store.end.index)
    sessions = store.sessions
    assert sessions.lookup(idle, 7) == b"idle"
    assert sessions.lookup(gone, 1) is None
    assert sessions.lookup(busy, 1099) == b"result 1099"
    assert sessions.lookup(busy, 76) == b"result 76"
    assert sessions.lookup(busy, 75) == Expired(75)


def test_every_epoch_stays_in_the_log() -> None:
    files = FaultyFiles()
    store = open_store(files, segment_bytes=300)
    for epoch in range(1, 20):
        write(store, Record(EPOCH, b"", b"", epoch), epoch=epoch)
        write(store, put(b"k", b"v", epoch), epoch=epoch)
    for i in range(12):
        write(store, put(b"k", b"v", 20 + i), epoch=19)
    before = store.epochs
    maintain(store)
    assert store.progress.compactions
    assert store.epochs == before
    store.close()
    assert open_store(files).epochs == before


# Readers, cuts, other threads


def test_a_reader_inside_a_joined_batch_gets_the_rest_of_it() -> None:
    files = FaultyFiles()
    store = open_store(files)
    expected = overwrite(store)
    whole = {i: list(records(store))[i:] for i in range(60)}
    maintain(store)
    for after in range(60):
        files = FaultyFiles()
        copy = open_store(files)
        for record in whole[0][:after]:
            write(copy, record._replace(index=0))
        position = after
        while data := store.read(position, 300):
            copy.inherit(store.horizon, store.purged_to)
            position = copy.append(data).index
        copy.flush()
        copy.commit(60)
        assert state(copy) == expected
        copy.close()
        files.crash()
        copy = open_store(files)
        assert (copy.end.index, copy.horizon, copy.applied) == (60, 60, 60)
        assert state(copy) == expected


def test_a_copy_that_is_not_complete_knows_it_after_a_restart() -> None:
    source, files = open_store(FaultyFiles()), FaultyFiles()
    overwrite(source)
    maintain(source)
    copy = open_store(files)
    copy.inherit(source.horizon, source.purged_to)
    data = source.read(0, 1)
    copy.append(data)
    copy.close()
    copy = open_store(files)
    assert copy.end.index < copy.horizon == 60
    assert copy.applied == copy.end.index, "what a compacted log had is committed"
    with pytest.raises(CutBelowCommitError):
        copy.cut(0)
    copy.append(source.read(copy.end.index, 1 << 20))
    copy.flush()
    assert copy.commit(60) == 60


def test_nothing_is_cut_below_the_horizon() -> None:
    files = FaultyFiles()
    store = open_store(files)
    overwrite(store)
    maintain(store)
    store.close()
    store = open_store(files)
    with pytest.raises(CutBelowCommitError):
        store.cut(59)


def test_what_is_appended_behind_a_compacted_segment_begins_another() -> None:
    files = FaultyFiles()
    store = open_store(files)
    overwrite(store, 20)
    for _ in range(3):
        write(store, put(b"tail", b"x"), commit=False)
    maintain(store)
    end = [int(n[:20]) for n in logs(files)][-1] - 1
    store.commit(end)
    store.cut(20)
    maintain(store)
    store.cut(20)
    write(store, put(b"new", b"1", 21), epoch=2)
    store.close()
    assert open_store(files).end == (2, 21)


class StaleOnce(HashIndex):
    """Answers the first question about each key as it would have before a compaction."""

    def __init__(self) -> None:
        super().__init__()
        self.stale: dict[bytes, int | None] = {}
        known = self.get
        self.get = lambda key: self.stale.pop(key) if key in self.stale else known(key)


def test_a_place_looked_up_before_it_was_moved_is_looked_up_again() -> None:
    index = StaleOnce()
    store = open_store(FaultyFiles(), index=lambda: index)
    expected = overwrite(store)
    stale = {k: index.get(k) for k in expected}
    maintain(store)
    index.stale = stale
    assert state(store) == expected
    assert not index.stale


def test_a_full_disk_stops_a_compaction_and_nothing_else() -> None:
    files = FaultyFiles()
    store = open_store(files, compaction=False)
    expected = overwrite(store)
    maintain(store)
    store.close()
    store = open_store(files, segment_bytes=10_000)
    store.commit(60)
    files.capacity = sum(len(d) for d in files.snapshot().values()) + 100
    files.told_free = 1 << 40  # it was so, when the store asked
    with pytest.raises(OSError, match="No space left"):
        maintain(store)
    assert not [n for n in files.list(DATA) if n.endswith(".tmp")]
    assert state(store) == expected
    files.capacity = None
    write(store, put(b"k0", b"still written", 61))
    maintain(store)
    assert store.progress.compactions
    assert store.get(b"k0") == Record(PUT, b"k0", b"still written", 61, 61)


def test_without_room_for_the_output_nothing_is_begun() -> None:
    files = FaultyFiles()
    store = open_store(files, compaction_reserve_bytes=1000)
    overwrite(store)
    files.capacity = sum(len(d) for d in files.snapshot().values()) + 1200
    before = logs(files)
    maintain(store)
    assert logs(files) == before


def test_a_sync_that_fails_in_a_compaction_fails_the_store() -> None:
    files = FaultyFiles()
    store = open_store(files)
    overwrite(store)
    files.failing_syncs = 1
    with pytest.raises(StoreFailedError):
        maintain(store)
    with pytest.raises(StoreFailedError):
        store.append(batch(61, put(b"a", b"")))


def test_damage_is_found_by_a_compaction_and_by_a_verification() -> None:
    files = FaultyFiles()
    store = open_store(files)
    write(store, Record(PUT, b"kept", b"value", 1, 1))
    overwrite(store)
    files.flip(DATA / logs(files)[0], 80)
    with pytest.raises(CorruptionError, match=logs(files)[0]):
        maintain(store)
    with pytest.raises(CorruptionError, match=logs(files)[0]):
        store.verify()
    files.flip(DATA / logs(files)[0], 80)
    maintain(store)
    sealed = logs(files)[:-1]
    sizes = [store.verify() for _ in range(2 * len(sealed))]
    assert sum(sizes) == 2 * sum(len(files.read(DATA / n)) for n in sealed)
    assert store.progress.verified_bytes == sum(sizes)


def test_damage_in_what_no_longer_counts_goes_with_it() -> None:
    files = FaultyFiles()
    store = open_store(files)
    newest = overwrite(store)
    files.flip(DATA / logs(files)[0], 80)
    maintain(store)
    assert store.progress.compactions
    assert {key: store.get(key) for key in newest} == newest
    assert [store.verify() for _ in logs(files)], "and nobody meets it any more"


def test_a_horizon_that_is_missing_is_corruption() -> None:
    files = FaultyFiles()
    with open_store(files) as store:
        overwrite(store)
        maintain(store)
    files.remove(DATA / HORIZON)
    with pytest.raises(CorruptionError, match="but a segment was compacted up to 60"):
        open_store(files)


def test_a_log_that_ends_before_what_was_committed_is_corruption() -> None:
    files = FaultyFiles()
    with open_store(files, compaction=False) as store:
        overwrite(store)
        maintain(store)
    files.remove(DATA / logs(files)[-1])
    with pytest.raises(CorruptionError, match="but 60 was committed"):
        open_store(files)


def test_hints_of_another_segment_and_damaged_ones_are_not_used() -> None:
    files = FaultyFiles()
    with open_store(files, compaction=False) as store:
        expected = overwrite(store)
        maintain(store)
    names = [hint_path(DATA / n) for n in logs(files)[:-1]]
    files.flip(names[0], 50)
    files.seen[names[1]].data = bytearray(files.read(names[2]))
    files.remove(names[3])
    with open_store(files, compaction=False) as store:
        assert state(store) == expected
        maintain(store)
        assert store.progress.hints == 3
        assert state(store) == expected


def test_segments_that_compaction_takes_get_no_hints_of_their_own() -> None:
    """They would be read once more for that; the outputs have hints, so has what stays as it is."""
    files = FaultyFiles()
    with open_store(files) as store:
        expected = overwrite(store)
        maintain(store)
        assert store.progress.compactions
        assert store.progress.hints == 0
        assert len([n for n in files.list(DATA) if n.endswith(".hint")]) == len(logs(files)) - 1
    with open_store(files) as store:
        assert state(store) == expected


def test_a_wipe_leaves_nothing_of_a_compacted_log() -> None:
    files = FaultyFiles()
    store = open_store(files)
    overwrite(store)
    maintain(store)
    store.wipe_for_rebuild()
    assert (store.horizon, store.keys, files.list(DATA)) == (0, 0, ["meta"])
    expected = overwrite(store)
    maintain(store)
    assert state(store) == expected
