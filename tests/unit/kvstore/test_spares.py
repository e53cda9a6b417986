"""Segments written into the files of older ones: whoever reads these is left alone, and nothing of them comes back."""

import errno
from pathlib import Path
from random import Random

import pytest

from kvstore.batch import Record, iter_batches
from kvstore.errors import CorruptionError, StoreFailedError
from kvstore.segment import (
    END,
    HEADER_BYTES,
    Segment,
    read_segment_header,
    recycled_header,
    segment_header,
    segment_name,
)
from kvstore.spares import SUFFIX, Spares
from kvstore.store import Store
from tests.support.faulty_files import CrashError, FaultyFiles, Inode
from tests.unit.kvstore.support import DATA, PUT, batch, fill, maintain, open_store, put, write

SEGMENT = 400  # bytes that a test store's segments have


def spares_in(files: FaultyFiles) -> list[Path]:
    return sorted(p for p in files.seen if p.suffix == SUFFIX)


def last_log(files: FaultyFiles) -> Path:
    return max(p for p in files.seen if p.suffix == ".log")


def is_recycled(files: FaultyFiles, path: Path) -> bool:
    return read_segment_header(bytes(files.seen[path].data), path).recycled


def overwritten(files: FaultyFiles, rounds: int = 12) -> Store:
    """A store whose first segments hold one key's old values; compaction has left spare files."""
    store = open_store(files, spare_segments=2)
    for i in range(1, rounds + 1):
        write(store, put(b"key", b"%d" % i, i))
    maintain(store)
    assert len(spares_in(files)) == 2
    return store


def into_a_spare(store: Store, files: FaultyFiles) -> None:
    """Go on until the log's last segment is in a file that another had, with two batches."""
    before = last_log(files)
    while last_log(files) == before:
        write(store, put(b"key", b"%d" % (store.end.index + 1), store.end.index + 1))
    assert is_recycled(files, last_log(files))
    write(store, put(b"key", b"%d" % (store.end.index + 1), store.end.index + 1))


def value(store: Store) -> bytes | None:
    record = store.get(b"key")
    return record.value if record else None


# --- in use ----------------------------------------------------------------------------------------------------------


def test_a_segment_is_written_into_the_file_of_an_older_one() -> None:
    files = FaultyFiles()
    store = overwritten(files)
    kept = [files.seen[p] for p in spares_in(files)]
    into_a_spare(store, files)
    assert files.seen[last_log(files)] in kept
    end = store.end
    files.crash()
    with open_store(files) as store:
        assert (store.end, store.torn_bytes) == (end, 0)
        store.commit(end.index)
        assert value(store) == b"%d" % end.index


def test_a_recycled_segment_that_is_full_ends_with_its_last_batch() -> None:
    files = FaultyFiles()
    with overwritten(files) as store:
        into_a_spare(store, files)
        path, batches = last_log(files), b""
        while last_log(files) == path:
            batches = bytes(files.seen[path].data[HEADER_BYTES:])
            write(store, put(b"key", b"%d" % (store.end.index + 1), store.end.index + 1))
        full = bytes(files.seen[path].data)
        headers = [header for header, _ in iter_batches(full[HEADER_BYTES:])]
        assert headers[-1].last == int(last_log(files).stem) - 1
        assert batches.startswith(full[HEADER_BYTES:])


def test_a_write_ahead_goes_into_a_spare_file_without_zeros_before() -> None:
    files = FaultyFiles()
    store = overwritten(files)
    into_a_spare(store, files)
    store.append(batch(store.end.index + 1, put(b"key", b"ahead", 99), commit=store.applied))
    written = len(files.operations)
    assert store.write_ahead() is not None
    assert files.operations[written:] == ["write"]
    store.synced()
    end = store.end
    files.stop()
    with open_store(files) as store:
        assert (store.end, store.torn_bytes) == (end, 0)


def test_a_file_is_not_written_while_somebody_reads_the_segment_it_was() -> None:
    files = FaultyFiles()
    file = files.open(DATA / segment_name(1), create=True)
    file.write(bytes(SEGMENT), 0)
    spares = Spares(files, DATA, most=1, segment_bytes=SEGMENT)
    segment = Segment(0, 1, DATA / segment_name(1), file, SEGMENT)
    spares.add(spares.keep([segment]))
    reader = segment.file
    del segment, file
    assert spares.take() is None
    del reader
    taken = spares.take()
    assert taken is not None
    assert taken[0] == DATA / f"{1:020d}{SUFFIX}"
    assert spares.take() is None


def test_what_is_kept_is_bounded_whole_and_not_missed() -> None:
    files = FaultyFiles(capacity=100 * SEGMENT)

    def segments(*sizes: int) -> list[Segment]:
        made = []
        for size in sizes:
            path = DATA / segment_name(len(files.seen) + 1)
            file = files.open(path, create=True)
            file.write(bytes(size), 0)
            made.append(Segment(0, 1, path, file, size))
        return made

    spares = Spares(files, DATA, most=2, segment_bytes=SEGMENT)
    kept = spares.keep(segments(SEGMENT // 2 - 1, SEGMENT + 1))
    assert not kept, "one would soon grow, the other takes more room than a segment"
    kept = spares.keep(segments(SEGMENT, SEGMENT // 2, SEGMENT))
    assert len(kept) == 2
    spares.add(kept)
    assert not spares.keep(segments(SEGMENT)), "two are enough"
    spares.trim()
    assert len(spares_in(files)) == 2
    files.told_free = 16 * SEGMENT - 1
    spares.trim()
    assert not spares_in(files)
    assert not spares.keep(segments(SEGMENT)), "there is little room"


def test_a_file_system_without_hard_links_has_no_spares(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    files = FaultyFiles()
    monkeypatch.setattr(files, "link", refuse)
    with open_store(files, spare_segments=2) as store:
        fill(store, 3)
        for i in range(4, 16):
            write(store, put(b"key", b"%d" % i, i))
        maintain(store)
        assert store.progress.compactions
        assert not spares_in(files)


def test_a_spare_that_somebody_removed_is_not_missed() -> None:
    files = FaultyFiles()
    with overwritten(files) as store:
        for path in spares_in(files):
            files.remove(path)
        for i in range(8):
            write(store, put(b"key", b"again", 100 + i))
        assert value(store) == b"again"


# --- over --------------------------------------------------------------------------------------------------------------


def test_an_end_and_a_start_leave_no_spares() -> None:
    files = FaultyFiles()
    overwritten(files).close()
    assert not spares_in(files)
    files = FaultyFiles()
    store = overwritten(files)
    end = store.end
    files.stop()
    with open_store(files) as store:
        assert not spares_in(files)
        assert store.end == end


def test_a_wiped_replica_writes_into_nothing_of_what_it_was() -> None:
    """The log begins anew: what the files hold would be newer than what is written into them."""
    files = FaultyFiles()
    with overwritten(files) as store:
        store.wipe_for_rebuild()
        assert not spares_in(files)
        for _ in range(8):
            write(store, put(b"key", b"anew"))
        assert not any(is_recycled(files, p) for p in files.seen if p.suffix == ".log")


# --- found at a start --------------------------------------------------------------------------------------------------


def test_every_byte_of_a_recycled_last_segment_flipped_in_turn() -> None:
    files = FaultyFiles()
    store = overwritten(files)
    into_a_spare(store, files)
    end, path = store.end.index, last_log(files)
    image, last = files.snapshot(), batch(end, put(b"key", b"%d" % end, end), commit=end - 1)
    at_end = image[path].index(last) + len(last)
    assert image[path][at_end : at_end + len(END)] == END
    assert any(image[path][at_end + len(END) :]), "what the file held before"
    for at in range(len(image[path])):
        files = FaultyFiles()
        files.seen = {p: Inode(bytearray(d), d) for p, d in image.items()}
        files.flip(path, at, at % 8)
        if at < at_end - len(last):
            with pytest.raises(CorruptionError):
                open_store(files)
            continue
        with open_store(files) as store:
            store.commit(store.end.index)
            if at < at_end:
                assert (store.end.index, store.torn_bytes > 0) == (end - 1, True), f"rot at {at} passes for an end"
                assert value(store) == b"%d" % (end - 1)
            else:
                assert (store.end.index, store.torn_bytes > 0) == (end, at < at_end + len(END))
                assert value(store) == b"%d" % end


@pytest.mark.parametrize("seed", range(8))
def test_a_crash_at_every_operation_loses_nothing_durable_and_brings_nothing_back(seed: int) -> None:
    random = Random(seed)
    crashed = 0
    for operation in range(1, 200):
        files = FaultyFiles()
        store = overwritten(files)
        files.crash_in, durable = operation, store.end.index
        try:
            for i in range(durable + 1, durable + 16):
                store.append(batch(i, put(b"key", b"%d" % i * random.randint(1, 9), i), commit=store.applied))
                store.flush()
                durable = store.durable.index
                store.commit(durable)
                if not i % 4:
                    store.maintain()
        except (CrashError, StoreFailedError):
            assert files.crashed
            crashed += 1
        else:
            assert operation > 30
            break
        files.crash(random)
        with open_store(files, spare_segments=2) as store:
            assert durable <= store.end.index <= durable + 1
            store.commit(store.end.index)
            record = store.get(b"key")
            assert record is not None
            assert record.index == store.end.index
            assert not record.value.replace(b"%d" % record.index, b"")
            for _ in range(5):
                write(store, put(b"key", b"goes on", 999))
    assert crashed > 30


OLD = [put(b"key", b"old%d" % i, i) for i in range(1, 9)]
NEW = Record(PUT, b"key", b"new", 10)


def found(data: bytes, first: int) -> tuple[int, int, bytes | None]:
    """Where a log of one recycled segment ends, how much of it is torn, and the key's value."""
    files = FaultyFiles()
    store = open_store(files, segment_bytes=10_000, preallocate_bytes=0)
    for i in range(1, first):
        write(store, put(b"key", b"x", i))
    files.stop()
    files.seen[DATA / segment_name(first)] = Inode(bytearray(data))
    with open_store(files) as store:
        store.commit(store.end.index)
        return store.end.index, store.torn_bytes, value(store)


@pytest.mark.parametrize("behind", range(0, 100, 7))
def test_a_batch_of_the_older_segment_is_no_part_of_the_log(behind: int) -> None:
    """Not even a whole one that lies exactly where the next would be: the mark of the end may be lost with a crash."""
    older = b"".join(batch(i, OLD[i - 1], commit=i - 1) for i in range(1, 9))
    newest = batch(10, NEW, commit=8)
    head = recycled_header(10)
    assert len(head) == HEADER_BYTES
    assert found(head + newest + older[behind:], 10)[::2] == (10, b"new")
    assert found(head + newest + END + older[behind:], 10) == (10, 0, b"new")
    assert found(head + newest, 10) == (10, 0, b"new")
    assert found(head + END + older[behind:], 10)[::2] == (9, b"x")
    assert found(head + older[behind:], 10)[::2] == (9, b"x")


def test_a_lost_write_among_committed_ones_is_damage_although_the_end_seems_marked() -> None:
    first, second, third = (batch(i, put(b"key", b"%d" % i, i), commit=i - 1) for i in (10, 11, 12))
    head = recycled_header(10)
    assert found(head + first + END + bytes(len(second) - len(END)) + bytes(len(third)), 10)[0] == 10
    with pytest.raises(CorruptionError):
        found(head + first + END + bytes(len(second) - len(END)) + third, 10)


def test_only_a_recycled_segment_may_have_older_batches_behind_its_end() -> None:
    older = batch(5, OLD[4], commit=4)
    with pytest.raises(CorruptionError, match="from index 5 where 11 must follow"):
        found(segment_header(10) + batch(10, NEW, commit=8) + older, 10)
