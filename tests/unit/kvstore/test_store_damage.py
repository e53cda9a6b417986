"""Disks at their worst: the right answer or an error by name, never a wrong value."""

from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kvstore.batch import Record
from kvstore.errors import CorruptionError, FormatVersionError, StoreFailedError
from kvstore.meta import EPOCHS, META, write_epochs
from kvstore.segment import HEADER_BYTES, RECYCLED_HEADER_BYTES, segment_name
from kvstore.store import Store
from tests.support.faulty_files import FaultyFiles, Inode
from tests.unit.kvstore.support import DATA, PUT, batch, delete, fill, is_recycled, maintain, may_be, open_store, put

COUNT = 12  # records in the small log, one a batch, in segments of three or four


def written() -> FaultyFiles:
    files = FaultyFiles()
    with open_store(files) as store:
        fill(store, COUNT // 2)
        fill(store, COUNT - COUNT // 2, epoch=2)
    return files


def logs(files: FaultyFiles) -> list[Path]:
    return sorted(p for p in files.seen if p.suffix == ".log")


def check_values(store: Store) -> None:
    """Whatever is there is what was written."""
    for i in range(1, COUNT + 1):
        found = store.get(b"k%d" % i)
        if i <= store.applied:
            assert found == Record(PUT, b"k%d" % i, b"v%d" % i, i, i)
        else:
            assert found is None


@pytest.mark.parametrize("bit", [0, 5])
def test_every_byte_of_a_log_flipped_in_turn_at_rest(bit: int) -> None:
    files = written()
    image = files.snapshot()
    ends = set()
    for path, data in image.items():
        for at in range(len(data)):
            files.flip(path, at, bit)
            before = files.snapshot()
            try:
                store = open_store(files)
            except (CorruptionError, FormatVersionError):
                assert files.snapshot() == before, "what is refused is left alone"
                files.flip(path, at, bit)
                continue
            assert path == logs(files)[-1], "only the last batch can be taken for a torn one"
            assert store.torn_bytes > 0
            check_values(store)
            ends.add(store.end.index)
            files = written()
    assert ends == {COUNT - 1}


def kept() -> FaultyFiles:
    """A store of every kind of file: a compacted segment, one with a hint and one without, a horizon."""
    files = FaultyFiles()
    with open_store(files) as store:
        fill(store, COUNT // 2)
        fill(store, COUNT - COUNT // 2, epoch=2)
        for i in range(COUNT + 1, COUNT + 7):
            store.append(batch(i, put(b"k%d" % (i - COUNT), b"again", i), epoch=2, commit=i - 1))
            store.flush()
            store.commit(i)
        maintain(store)
        assert store.progress.compactions
        fill(store, 8, epoch=3)
        store.maintain()
    assert {p.suffix for p in files.seen} == {".log", ".hint", ""}
    return files


def test_every_byte_of_a_compacted_store_flipped_in_turn() -> None:
    """Right answers or an error by name at the start, at a read, or when the log is kept; hints are only made anew."""
    files = kept()
    with open_store(files) as store:
        store.commit(store.end.index)
        expected = {b"k%d" % i: store.get(b"k%d" % i) for i in range(30)}
        end = store.end.index
    image = files.snapshot()
    told: dict[str, int] = {}
    for path, data in image.items():
        for at in range(len(data)):
            files = FaultyFiles()
            files.seen = {p: Inode(bytearray(d), d) for p, d in image.items()}
            files.flip(path, at, at % 8)
            try:
                with capture_logs(), open_store(files) as store:
                    if store.torn_bytes:
                        assert path == logs(files)[-1]
                    store.commit(store.end.index)
                    answers = {k: store.get(k) for k in expected}
                    maintain(store)
                    for _ in range(store.segments):
                        store.verify()
                    assert {k: store.get(k) for k in expected} == answers
            except (CorruptionError, FormatVersionError):
                told[path.suffix] = told.get(path.suffix, 0) + 1
                continue
            is_twice = HEADER_BYTES <= at < RECYCLED_HEADER_BYTES and is_recycled(data, path)
            assert path.suffix == ".hint" or is_twice or store.end.index < end, f"{path} at {at} was not noticed"
            whole = store.end.index == end
            assert all(
                found == expected[k] or (not whole and may_be(found, expected[k])) for k, found in answers.items()
            )
    assert told[".log"] > 500
    assert ".hint" not in told


def test_every_byte_of_a_log_flipped_in_turn_under_an_open_store() -> None:
    files = written()
    store = open_store(files)
    store.commit(COUNT)
    errors = 0
    for path in logs(files):
        for at in range(len(files.seen[path].data)):
            files.flip(path, at, 3)
            for i in range(1, COUNT + 1):
                try:
                    assert store.get(b"k%d" % i) == Record(PUT, b"k%d" % i, b"v%d" % i, i, i)
                except CorruptionError as e:
                    errors += e.file == str(path)
            files.flip(path, at, 3)
    assert errors > COUNT * 30
    check_values(store)


def test_a_record_found_for_another_key_is_never_returned() -> None:
    files = written()
    store = open_store(files)
    index = store._applier.index
    place = index.get(b"k2")
    index.apply({b"k1": place}, 1)
    with pytest.raises(CorruptionError, match="not the one of key b'k1'"):
        store.get(b"k1")


def test_a_deletion_found_for_a_key_is_never_returned() -> None:
    store = open_store(FaultyFiles())
    store.append(batch(1, delete(b"k")))
    store.flush()
    store.commit(1)
    store._applier.index.apply({b"k": HEADER_BYTES + 46 << 21 | 28}, 1)
    with pytest.raises(CorruptionError, match="not the one of key"):
        store.get(b"k")


def test_a_tail_torn_at_every_length_is_cut_at_the_last_whole_batch() -> None:
    whole = written()
    last = logs(whole)[-1]
    length = len(whole.seen[last].data)
    ends = []
    for size in range(length):
        for filler in (b"", bytes(7)) if size >= HEADER_BYTES else (b"",):  # the header was synced before the rest
            files = written()
            files.seen[last].data = bytearray(whole.seen[last].data[:size] + filler)
            store = open_store(files)
            check_values(store)
            ends.append(store.end.index)
            store.append(batch(store.end.index + 1, put(b"new", b"1"), epoch=3))
            store.close()
            files.crash()
            assert open_store(files).torn_bytes == 0
    assert ends == sorted(ends)
    assert set(ends) == set(range(int(last.stem) - 1, COUNT))


def test_what_was_cut_is_told() -> None:
    files = written()
    last = logs(files)[-1]
    file = files.open(last)
    file.write(b"half a batch", file.size())
    store = open_store(files)
    assert (store.torn_bytes, store.end.index) == (12, COUNT)
    store.close()
    assert open_store(files).torn_bytes == 0


def test_a_tail_torn_in_an_earlier_segment_is_corruption() -> None:
    for size in range(HEADER_BYTES + 1, 200, 9):
        files = written()
        del files.seen[logs(files)[0]].data[size:]
        with pytest.raises(CorruptionError):
            open_store(files)


def test_damage_before_valid_data_is_corruption_not_a_torn_tail() -> None:
    files = FaultyFiles()
    with open_store(files, segment_bytes=10_000) as store:
        fill(store, COUNT)
    one = (len(files.seen[DATA / segment_name(1)].data) - HEADER_BYTES) // COUNT
    before = files.snapshot()
    for at in range(HEADER_BYTES, HEADER_BYTES + (COUNT - 2) * one):
        files.flip(DATA / segment_name(1), at)
        with pytest.raises((CorruptionError, FormatVersionError), match=segment_name(1)):
            open_store(files)
        files.flip(DATA / segment_name(1), at)
    assert files.snapshot() == before


def test_batches_of_one_flush_that_reached_the_disk_out_of_order_are_a_torn_tail() -> None:
    files = FaultyFiles()
    with open_store(files, segment_bytes=10_000) as store:
        fill(store, 3)
        size = store.log_bytes
        for index in (4, 5):  # neither is durable, so neither can have been committed
            store.append(batch(index, put(b"new", b"%d" % index), commit=3))
        store.flush()
    files.seen[DATA / segment_name(1)].data[size : size + 20] = bytes(20)
    store = open_store(files)
    assert store.torn_bytes > 0
    assert store.end.index == 3
    assert store.commit(3) == 3
    assert store.get(b"k3") is not None


@pytest.mark.parametrize("which", [0, 1])
def test_a_missing_segment_is_corruption(which: int) -> None:
    files = written()
    files.remove(logs(files)[which])
    with pytest.raises(CorruptionError, match="begins at index"):
        open_store(files)


def test_a_segment_twice_is_corruption() -> None:
    files = written()
    first = files.seen[logs(files)[0]]
    files.open(DATA / segment_name(COUNT + 1), create=True).write(bytes(first.data), 0)
    with pytest.raises(CorruptionError):
        open_store(files)


def test_an_empty_segment_inside_the_log_is_corruption() -> None:
    files = written()
    del files.seen[logs(files)[1]].data[HEADER_BYTES:]
    with pytest.raises(CorruptionError):
        open_store(files)


def test_batches_in_the_wrong_order_are_corruption() -> None:
    files = FaultyFiles()
    open_store(files).close()
    write_epochs(files, DATA, [(1, 1)])
    log = files.open(DATA / segment_name(1), create=True)
    with open_store(FaultyFiles()) as other:
        fill(other, 1)
        header = other._log.pread(0, 0, HEADER_BYTES)
    log.write(header + batch(1, put(b"a", b"")) + batch(3, put(b"a", b"")), 0)
    with pytest.raises(CorruptionError, match="a batch from index 3 where 2 must follow"):
        open_store(files)


@pytest.mark.parametrize("size", [0, 10, HEADER_BYTES])
def test_a_segment_whose_birth_was_torn_is_removed(size: int) -> None:
    files = written()
    files.open(DATA / segment_name(COUNT + 1), create=True).write(bytes(size), 0)
    store = open_store(files)
    assert (store.end.index, store.torn_bytes) == (COUNT, size)
    fill(store, 5, epoch=3, commit=False)
    store.close()
    assert open_store(files).end.index == COUNT + 5


def test_an_epoch_table_that_is_missing_or_another_is_corruption() -> None:
    files = written()
    epochs = files.seen.pop(DATA / EPOCHS)
    with pytest.raises(CorruptionError, match="says epoch 0 at index 1, the log epoch 1"):
        open_store(files)
    other = FaultyFiles()
    with open_store(other) as store:
        fill(store, 3)
    files.seen[DATA / EPOCHS] = other.seen[DATA / EPOCHS]
    with pytest.raises(CorruptionError, match="says epoch 1 at index 7, the log epoch 2"):
        open_store(files)
    files.seen[DATA / EPOCHS] = epochs
    assert open_store(files).end.index == COUNT


def test_a_damaged_directory_can_be_rebuilt_by_name() -> None:
    files = written()
    files.flip(logs(files)[0], 60)
    with pytest.raises(CorruptionError):
        open_store(files)
    store = open_store(files, rebuild=True)
    assert (store.end, store.keys, files.list(DATA)) == ((0, 0), 0, [META])
    fill(store, 2, epoch=5)


# Disks that refuse


def refuses_everything(store: Store) -> None:
    for call in (
        lambda: store.append(batch(store.end.index + 1, put(b"a", b""), epoch=9)),
        store.flush,
        lambda: store.commit(1),
        lambda: store.get(b"k1"),
        lambda: store.read(0, 100),
        lambda: store.cut(store.end.index),
        lambda: store.save_state({}),
    ):
        with pytest.raises(StoreFailedError, match="must leave and be rebuilt"):
            call()
    assert isinstance(store.failure, StoreFailedError)


def test_a_full_disk_fails_the_store_and_loses_nothing_that_was_durable() -> None:
    files = FaultyFiles(capacity=1500)
    store = open_store(files)
    with pytest.raises(StoreFailedError, match="No space left on device"):
        fill(store, 100)
    survived = store.durable.index
    assert survived > 3
    refuses_everything(store)
    store.close()
    files.capacity = None
    store = open_store(files)
    assert store.end.index == survived
    store.commit(survived)
    assert store.keys == survived


def test_a_disk_that_fills_at_any_byte_is_survived() -> None:
    for capacity in range(700, 1300):
        files = FaultyFiles(capacity=capacity)
        store = open_store(files)
        with capture_logs(), pytest.raises(StoreFailedError):
            fill(store, 100)
        durable = store.durable.index
        assert durable
        files.capacity = None
        files.crash()
        assert open_store(files).end.index == durable, f"with room for {capacity} bytes"


def test_a_failed_sync_is_never_tried_again() -> None:
    files = FaultyFiles()
    store = open_store(files)
    fill(store, 3)
    store.append(batch(4, put(b"k4", b"v4"), commit=3))
    files.failing_syncs = 1
    with pytest.raises(StoreFailedError, match="Input/output error"):
        store.flush()
    assert store.durable.index == 3
    files.operations.clear()
    refuses_everything(store)
    assert files.operations == []
    store.close()


def test_after_a_failed_sync_a_restart_is_not_trusted_either() -> None:
    files = FaultyFiles()
    store = open_store(files)
    fill(store, 3)
    store.append(batch(4, put(b"k4", b"v4"), commit=3))
    files.failing_syncs = 1
    with pytest.raises(StoreFailedError):
        store.flush()
    store.close()
    with pytest.raises(StoreFailedError, match="Open it with rebuild"):
        open_store(files)
    store = open_store(files, rebuild=True)
    assert store.end == (0, 0)
    store.close()
    assert open_store(files).incarnation == store.incarnation


def test_a_sync_that_fails_at_the_start_is_not_tried_again_by_the_next() -> None:
    files = written()
    files.failing_syncs = 1
    with pytest.raises(StoreFailedError, match="sync or write at the start"):
        open_store(files)
    with pytest.raises(StoreFailedError, match="Open it with rebuild"):
        open_store(files)


def test_a_failed_store_is_healed_by_a_wipe() -> None:
    files = FaultyFiles()
    store = open_store(files)
    fill(store, 3)
    store.append(batch(4, put(b"k4", b"v4")))
    files.failing_syncs = 1
    with pytest.raises(StoreFailedError):
        store.flush()
    assert store.wipe_for_rebuild() == "incarnation-2"
    fill(store, 2)
    files.crash()
    assert (open_store(files).end.index, store.failure) == (2, None)


def test_a_wipe_that_the_disk_refuses_fails() -> None:
    files = FaultyFiles()
    store = open_store(files)
    fill(store, 3)
    files.failing_syncs = 1
    with pytest.raises(StoreFailedError, match="wipe"):
        store.wipe_for_rebuild()
    refuses_everything(store)
    files.crash()
    with pytest.raises(StoreFailedError, match="Open it with rebuild"):
        open_store(files)
    assert open_store(files, rebuild=True).end.index == 0


@pytest.mark.parametrize("nth", [1, 2])
def test_a_failed_cut_or_state_fails_the_store(nth: int) -> None:
    files = FaultyFiles()
    store = open_store(files)
    fill(store, 9, commit=False)
    files.failing_syncs = 9
    with pytest.raises(StoreFailedError):
        store.cut(4) if nth == 1 else store.save_state({"a": 1})
    refuses_everything(store)


# Disks that can't read


def test_a_place_of_any_file_that_cannot_be_read_at_a_start_is_damage_by_name() -> None:
    """As any damage, it lets the replica be rebuilt; hints are only made anew."""
    image = kept().snapshot()
    refused = set()
    for path, data in image.items():
        for at in range(0, len(data), 7):
            files = FaultyFiles()
            files.seen = {p: Inode(bytearray(d), d) for p, d in image.items()}
            files.damage(path, at)
            found = opened(files)
            if isinstance(found, CorruptionError):
                refused.add(path)
                assert (found.file, files.snapshot()) == (str(path), image), "what is refused is left alone"
    hints = {path for path in image if path.suffix == ".hint"}
    assert refused == set(image) - hints


def opened(files: FaultyFiles) -> Store | CorruptionError:
    try:
        with capture_logs(), open_store(files) as store:
            return store
    except CorruptionError as e:
        return e


def test_a_place_that_cannot_be_read_ends_what_reads_it_and_changes_nothing() -> None:
    """Gets, what followers are sent, compaction and verification."""
    files = FaultyFiles()
    store = open_store(files, read_cache_bytes=1)
    fill(store, COUNT)
    files.damage(logs(files)[0], 100)
    reads: list[Callable[[], object]] = [
        lambda: store.get(b"k1"),
        lambda: store.read(0, 100),
        store.maintain,
        store.verify,
    ]
    for read in reads:
        with pytest.raises(OSError, match="Input/output error"):
            read()
    files.heal()
    check_values(store)


def test_a_write_that_fails_leaves_what_was_durable() -> None:
    """Half of it is on the disk: the next start cuts that."""
    files = FaultyFiles()
    store = open_store(files)
    fill(store, 3)
    store.append(batch(4, put(b"k4", b"v4"), commit=3))
    files.failing_writes = 1
    with pytest.raises(StoreFailedError, match="Input/output error"):
        store.flush()
    refuses_everything(store)
    store.close()
    store = open_store(files)
    assert store.torn_bytes > 0
    assert store.end.index == 3
    check_values(store)


def test_a_disk_that_cannot_write_at_a_start_is_damaged() -> None:
    """An error of the folder's set-up would be for a person; this replica is to be rebuilt."""
    files = FaultyFiles()
    with open_store(files) as store:
        fill(store, 3)
    files.failing_writes = 1
    with pytest.raises(StoreFailedError, match=r"sync or write at the start in /data failed: .*Input/output error"):
        open_store(files, durability="memory")
    with open_store(files, durability="memory", rebuild=True) as store:
        assert store.end.index == 0
