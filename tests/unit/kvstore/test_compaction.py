"""Compaction and hints: what goes, what stays, and a crash at every step of the way."""

from collections.abc import Iterator
from random import Random

import pytest

from kvstore.batch import Record, iter_batches, iter_records
from kvstore.store import Store
from tests.support.faulty_files import CrashError, FaultyFiles
from tests.unit.kvstore.support import DATA, PUT, batch, fold, maintain, open_store, put

MS = 1 << 22  # a millisecond, in versions


def write(store: Store, *records: Record, epoch: int = 1, commit: bool = True) -> None:
    """A batch of these records, durable, and committed unless said otherwise."""
    store.append(batch(store.end.index + 1, *records, epoch=epoch, commit=store.applied))
    store.flush()
    if commit:
        store.commit(store.end.index)


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
