"""Segments written into the files of older ones: whoever reads these is left alone, and nothing of them comes back."""

import errno
from pathlib import Path
from random import Random
from typing import Any

import pytest

from kvstore.batch import HEADER_BYTES as HEADER
from kvstore.batch import iter_batches, seal_batch
from kvstore.errors import CorruptionError, StoreFailedError
from kvstore.segment import (
    HEADER_BYTES,
    RECYCLED_HEADER_BYTES,
    Segment,
    read_segment_header,
    recycled_header,
    segment_header,
    segment_name,
)
from kvstore.spares import SUFFIX, Spares
from kvstore.store import Store
from tests.support.faulty_files import CrashError, FaultyFiles, Inode
from tests.unit.kvstore.support import DATA, batch, fill, is_recycled, maintain, open_store, put, recycled_head, write

SEGMENT = 400  # bytes that a test store's segments have


def spares_in(files: FaultyFiles) -> list[Path]:
    return sorted(p for p in files.seen if p.suffix == SUFFIX)


def last_log(files: FaultyFiles) -> Path:
    return max(p for p in files.seen if p.suffix == ".log")


def overwritten(files: FaultyFiles, **options: Any) -> Store:
    """A store whose first segments hold one key's old values; compaction has left spare files."""
    store = open_store(files, spare_segments=2, **options)
    for i in range(1, 13):
        write(store, put(b"key", b"%d" % i, i))
    maintain(store)
    assert len(spares_in(files)) == 2
    return store


def into_a_spare(store: Store, files: FaultyFiles) -> None:
    """Go on until the log's last segment is in a file that another had, with two batches."""
    before = last_log(files)
    while last_log(files) == before:
        write(store, put(b"key", b"%d" % (store.end.index + 1), store.end.index + 1))
    assert is_recycled(files.read(last_log(files)), last_log(files))
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
            batches = bytes(files.seen[path].data[RECYCLED_HEADER_BYTES:])
            write(store, put(b"key", b"%d" % (store.end.index + 1), store.end.index + 1))
        full = bytes(files.seen[path].data)
        headers = [header for header, _ in iter_batches(full[RECYCLED_HEADER_BYTES:])]
        assert headers[-1].last == int(last_log(files).stem) - 1
        assert batches.startswith(full[RECYCLED_HEADER_BYTES:])


def test_a_write_ahead_goes_into_zeros_in_a_recycled_segment_too() -> None:
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
    spares = Spares(files, DATA, most=1, segment_bytes=SEGMENT, least_free=0)
    segment = Segment(0, 1, DATA / segment_name(1), file, SEGMENT)
    spares.keep([segment])
    reader, name = segment.file, DATA / segment_name(9)
    del segment, file
    assert spares.take(name, recycled_header(9), sync=True) is None
    del reader
    taken = spares.take(name, recycled_header(9), sync=True)
    assert taken is not None
    assert taken.pread(SEGMENT, 0) == recycled_header(9) + bytes(SEGMENT - RECYCLED_HEADER_BYTES)
    assert spares.take(name, recycled_header(9), sync=True) is None
    assert not spares_in(files)


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

    spares = Spares(files, DATA, most=2, segment_bytes=SEGMENT, least_free=20 * SEGMENT)
    spares.keep(segments(SEGMENT // 2 - 1, SEGMENT + 1))
    assert not spares_in(files), "one would soon grow, the other takes more room than a segment"
    spares.keep(segments(SEGMENT, SEGMENT // 2, SEGMENT))
    assert len(spares_in(files)) == 2
    spares.keep(segments(SEGMENT))
    assert len(spares_in(files)) == 2, "two are enough"
    spares.trim()
    assert len(spares_in(files)) == 2
    files.told_free = 20 * SEGMENT - 1
    spares.trim()
    assert not spares_in(files)
    spares.keep(segments(SEGMENT))
    assert not spares_in(files), "there is little room"


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
        assert not any(is_recycled(data, path) for path, data in files.snapshot().items())


# --- found at a start --------------------------------------------------------------------------------------------------


def test_every_byte_of_a_recycled_last_segment_flipped_in_turn() -> None:
    """What is rotten is refused or told, whatever the file held before; how much of it is the segment's is there twice."""
    files = FaultyFiles()
    store = overwritten(files, preallocate_bytes=40)
    into_a_spare(store, files)
    end, path = store.end.index, last_log(files)
    image, last = files.snapshot(), batch(end, put(b"key", b"%d" % end, end), commit=end - 1)
    at_end = image[path].index(last) + len(last)
    header = read_segment_header(image[path], path)
    assert header.used is not None
    used = max(header.used)
    assert image[path][at_end:used] == bytes(used - at_end)
    assert any(image[path][used:]), "what the file held before"
    untold = 0
    for at in range(len(image[path])):
        files = FaultyFiles()
        files.seen = {p: Inode(bytearray(d), d) for p, d in image.items()}
        files.flip(path, at, at % 8)
        if at < at_end - len(last) and not HEADER_BYTES <= at < RECYCLED_HEADER_BYTES:
            with pytest.raises(CorruptionError):
                open_store(files)
            continue
        with open_store(files) as store:
            store.commit(store.end.index)
            in_last = at_end - len(last) <= at < at_end
            assert store.end.index == end - in_last
            assert value(store) == b"%d" % store.end.index
            if not store.torn_bytes:
                assert at >= used, f"rot at {at} passes for an end"
                untold += 1
    assert untold == len(image[path]) - used, "what is not the segment's does not count"


@pytest.mark.parametrize("seed", range(8))
def test_a_crash_at_every_operation_loses_nothing_durable_and_brings_nothing_back(seed: int) -> None:
    random = Random(seed)
    crashed = 0
    for operation in range(1, 200):
        files = FaultyFiles()
        store = overwritten(files, preallocate_bytes=random.choice([0, 50, 200]))
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


OLD = b"".join(batch(i, put(b"key", b"old%d" % i, i), commit=i - 1) for i in range(1, 9))
FIRST, SECOND, THIRD = (batch(i, put(b"key", b"%d" % i, i), commit=i - 1) for i in (10, 11, 12))


def segment_of(*used: int, content: bytes) -> bytes:
    """A recycled segment; `used` as `recycled_head` has it."""
    head = recycled_head(10, *used)
    assert len(head) == RECYCLED_HEADER_BYTES
    return head + content


def found(data: bytes, first: int = 10) -> tuple[int, bool, bytes | None]:
    """Where a log with such a last segment ends, whether something was torn, and the key's value."""
    files = FaultyFiles()
    store = open_store(files, segment_bytes=10_000, preallocate_bytes=0)
    for i in range(1, first):
        write(store, put(b"key", b"x", i))
    files.stop()
    files.seen[DATA / segment_name(first)] = Inode(bytearray(data))
    with open_store(files) as store:
        store.commit(store.end.index)
        return store.end.index, store.torn_bytes > 0, value(store)


START = RECYCLED_HEADER_BYTES
ONE, TWO, ALL = START + len(FIRST), START + len(FIRST + SECOND), START + len(FIRST + SECOND + THIRD)


def test_the_segment_ends_where_its_header_says() -> None:
    assert found(segment_of(START, START, content=OLD)) == (9, False, b"x")
    assert found(segment_of(ONE, START, content=FIRST + OLD)) == (10, False, b"10")
    assert found(segment_of(ONE, TWO, content=FIRST + SECOND + OLD)) == (11, False, b"11")
    assert found(segment_of(ONE, TWO + 30, content=FIRST + SECOND + bytes(30) + OLD)) == (11, False, b"11")
    assert found(segment_of(ONE, START, content=FIRST + SECOND)) == (10, False, b"10"), (
        "what was not said was not synced"
    )


@pytest.mark.parametrize("behind", range(0, 100, 7))
def test_nothing_of_an_older_segment_is_part_of_the_log(behind: int) -> None:
    """Said to be the segment's, but not yet written when the power went: it is torn, even a whole batch in the right place."""
    assert found(segment_of(ONE, ONE + 90, content=FIRST + OLD[behind:])) == (10, True, b"10")
    assert found(segment_of(START, START + 90, content=OLD[behind:])) == (9, True, b"x")


def test_a_place_in_the_header_that_is_torn_hides_nothing() -> None:
    """It may be a write that a crash tore, or rot: then what it said was durable."""
    assert found(segment_of(ONE, 0, content=FIRST + OLD)) == (10, True, b"10")
    assert found(segment_of(ONE, 0, content=FIRST + SECOND + OLD)) == (11, True, b"11")
    assert found(segment_of(0, ONE, content=FIRST + SECOND)) == (11, False, b"11")
    with pytest.raises(CorruptionError, match="neither place"):
        found(segment_of(0, 0, content=FIRST))


def test_lost_sectors_are_told_as_in_any_segment() -> None:
    lost = bytes(len(SECOND))
    assert found(segment_of(ONE, TWO, content=FIRST + lost[:40] + SECOND[40:] + OLD)) == (10, True, b"10")
    assert found(segment_of(ALL, TWO, content=FIRST + lost + THIRD[:50])) == (10, True, b"10")
    with pytest.raises(CorruptionError):
        found(segment_of(ALL, TWO, content=FIRST + lost + THIRD + OLD))


def test_values_that_look_like_batches_do_no_harm() -> None:
    """Neither in what the file held before, nor in a write that a crash tore."""
    forged = b"".join(
        seal_batch(epoch=1, first=n, last=n, commit=n - 1, count=0, body=b"") for n in (1 << 40, 1000, 15, 11)
    )
    older = batch(3, put(b"key", forged, 3), commit=2)
    assert found(segment_of(ONE, START, content=FIRST + older)) == (10, False, b"10")
    torn = batch(11, put(b"key", forged[: -2 * HEADER], 11), commit=10)
    assert found(segment_of(ONE, START + 800, content=FIRST + b"x" + torn[1:])) == (10, True, b"10")


def test_only_a_recycled_segment_may_have_older_batches_behind_its_end() -> None:
    with pytest.raises(CorruptionError, match="from index 1 where 11 must follow"):
        found(segment_header(10) + FIRST + OLD)
