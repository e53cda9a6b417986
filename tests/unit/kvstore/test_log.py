"""Segments: rolled, read from anywhere, cut at a batch's end."""

import pytest

from kvstore.batch import iter_batches, read_header
from kvstore.errors import BatchBoundaryError, CorruptionError, FormatVersionError
from kvstore.files import SyncError
from kvstore.hint import Hint
from kvstore.log import MAX_SEGMENT_BYTES, Log, LogBatch
from kvstore.recovery import recover
from kvstore.segment import (
    HEADER_BYTES,
    Segment,
    SegmentHeader,
    committed_behind,
    read_segment_header,
    segment_header,
    segment_name,
)
from tests.support.faulty_files import FaultyFiles
from tests.unit.kvstore.support import DATA, batch, put


class Seen:
    """What a recovery shows, nothing of it known to be committed."""

    known_commit = 0

    def __init__(self) -> None:
        self.batches: list[LogBatch] = []

    def visit_batch(self, batch: LogBatch, highest_version: int) -> None:
        self.batches.append(batch)

    def visit_segment(self, segment: Segment, hint: Hint) -> None:
        raise AssertionError(segment, hint)


def log_batch(first: int, count: int = 1, *, size: int = 20) -> LogBatch:
    data = batch(first, *[put(b"k%d" % (first + i), bytes(size)) for i in range(count)])
    return LogBatch(read_header(data), data)


def make(files: FaultyFiles, segment_bytes: int = 330, batches: int = 10) -> tuple[Log, list[LogBatch]]:
    """A log of batches of two records: 1..2, 3..4 and so on."""
    log = Log(files, DATA, segment_bytes)
    made = [log_batch(1 + 2 * i, 2) for i in range(batches)]
    log.write(made, sync=True)
    return log, made


def bounds(data: bytes) -> list[tuple[int, int]]:
    return [(h.first, h.last) for h, _ in iter_batches(data)]


def test_segments_are_rolled_when_full_and_named_by_their_first_index() -> None:
    files = FaultyFiles()
    log, made = make(files)
    assert files.list(DATA) == [segment_name(i) for i in (1, 5, 9, 13, 17)]
    assert log.segment_count == 5
    assert log.size == sum(len(d) for d in files.snapshot().values())
    assert all(log.pread(b.segment, b.offset, len(b.data)) == b.data for b in made)
    assert log.name(made[-1].segment).endswith("17.log")


def test_one_group_is_one_write_and_one_sync() -> None:
    files = FaultyFiles()
    log, _ = make(files, 5000, 1)
    files.operations.clear()
    log.write([log_batch(3), log_batch(4), log_batch(5)], sync=True)
    assert files.operations == ["write", "sync"]
    files.operations.clear()
    log.write([log_batch(6)], sync=False)
    assert files.operations == ["write"]


def test_a_segment_is_on_the_disk_before_the_next_begins() -> None:
    files = FaultyFiles()
    make(files, 330, 3)
    birth = ["create", "write", "sync", "sync directory"]
    assert files.operations == [*birth, "write", "sync", *birth, "write", "sync"]


def test_zeros_are_written_ahead_of_the_end_and_the_next_batches_into_them() -> None:
    files = FaultyFiles()
    log = Log(files, DATA, 10_000, preallocate_bytes=500)
    path = DATA / segment_name(1)
    log.write([log_batch(1)], sync=True)
    allocated = len(files.read(path))
    assert allocated == log.size + 500
    files.operations.clear()
    log.write([log_batch(2)], sync=True)
    assert (files.operations, len(files.read(path))) == (["write", "sync"], allocated), "nothing but bytes in place"
    log.write([log_batch(i) for i in range(3, 9)], sync=True)
    assert files.operations[2:] == ["write", "write", "sync"]
    assert files.read(path)[log.size :] == bytes(500)
    assert bounds(log.read(0, 10_000)) == [(i, i) for i in range(1, 9)]


def test_no_zeros_are_written_behind_a_large_write() -> None:
    """They would double what the disk writes; the next small one has some again."""
    files = FaultyFiles()
    log = Log(files, DATA, 1 << 20, preallocate_bytes=500)
    log.write([log_batch(1)], sync=True)
    files.operations.clear()
    log.write([log_batch(2, size=64 << 10)], sync=True)
    assert (files.operations, len(files.read(DATA / segment_name(1)))) == (["write", "sync"], log.size)
    log.write([log_batch(3)], sync=True)
    assert len(files.read(DATA / segment_name(1))) == log.size + 500
    assert bounds(log.read(0, 1 << 20)) == [(1, 1), (2, 2), (3, 3)]


def test_a_segment_that_is_left_ends_where_its_batches_end() -> None:
    files = FaultyFiles()
    log = Log(files, DATA, 330, preallocate_bytes=500)
    log.write([log_batch(1)], sync=True)
    assert len(files.read(DATA / segment_name(1))) == 330, "no further than a segment goes"
    log.write([log_batch(2, size=250)], sync=True)
    files.crash()
    assert files.list(DATA) == [segment_name(1), segment_name(2)]
    assert len(files.read(DATA / segment_name(1))) == HEADER_BYTES + len(log_batch(1).data)
    assert recover(files, DATA, 330, Seen()).torn == 0


def test_a_disk_too_full_for_zeros_takes_the_batch() -> None:
    files = FaultyFiles(capacity=300)
    log = Log(files, DATA, 10_000, preallocate_bytes=500)
    log.write([log_batch(1)], sync=True)
    log.write([log_batch(2)], sync=True)
    assert bounds(log.read(0, 10_000)) == [(1, 1), (2, 2)]


def test_zeros_that_a_full_disk_had_room_for_do_not_stay_behind_a_segment() -> None:
    """A next segment, once there is room, left them inside the log: at the next start its disk was called damaged."""
    files = FaultyFiles(capacity=120)
    log = Log(files, DATA, 120, preallocate_bytes=500)
    log.write([log_batch(1)], sync=True)
    files.capacity = None
    log.write([log_batch(2)], sync=True)
    files.crash()
    seen = Seen()
    recover(files, DATA, 120, seen)
    assert len(seen.batches) == 2


def test_zeros_behind_the_end_are_no_torn_tail_and_what_was_torn_inside_them_is() -> None:
    files = FaultyFiles()
    log = Log(files, DATA, 10_000, preallocate_bytes=500)
    log.write([log_batch(1), log_batch(2)], sync=True)
    files.crash()
    killed = files.copy()
    seen = Seen()
    assert (recover(killed, DATA, 10_000, seen).torn, len(seen.batches)) == (0, 2)
    file = files.open(DATA / segment_name(1))
    file.write(b"+" * 20, log.size + 40)  # its second part reached the disk, its first did not
    assert recover(files, DATA, 10_000, Seen()).torn == 60


def test_a_batch_larger_than_a_segment_has_one_of_its_own() -> None:
    files = FaultyFiles()
    log = Log(files, DATA, 100)
    log.write([log_batch(1, size=900), log_batch(2, size=900)], sync=True)
    assert log.segment_count == 2
    assert bounds(log.read(0, 10_000)) == [(1, 1), (2, 2)]


@pytest.mark.parametrize("size", [0, HEADER_BYTES, MAX_SEGMENT_BYTES + 1])
def test_a_segment_size_that_cannot_be_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"segment_bytes is {size}"):
        Log(FaultyFiles(), DATA, size)


@pytest.mark.parametrize("after", range(0, 20, 2))
def test_the_log_is_read_from_any_batch_on(after: int) -> None:
    log, made = make(FaultyFiles())
    assert log.read(after, 1 << 20) == b"".join(b.data for b in made[after // 2 :])
    assert log.read(after, 0) == made[after // 2].data, "at least one"
    two = b"".join(b.data for b in made[after // 2 : after // 2 + 2])
    assert log.read(after, len(two)) == two
    assert log.read(after, len(two) - 1) == made[after // 2].data


def test_behind_the_end_there_is_nothing() -> None:
    log, _ = make(FaultyFiles())
    assert log.read(20, 100) == b""


def test_reading_from_inside_a_batch_is_refused() -> None:
    log, _ = make(FaultyFiles())
    with pytest.raises(BatchBoundaryError, match=r"index 7 is inside the batch 7\.\.8"):
        log.read(7, 100)


def test_a_long_segment_is_read_from_marks_not_from_its_beginning() -> None:
    files = FaultyFiles()
    log = Log(files, DATA, 8 << 20)
    for i in range(1, 101):
        log.write([log_batch(i, size=30_000)], sync=False)
    files.preads = 0
    assert bounds(log.read(90, 1 << 20)) == [(i, i) for i in range(91, 101)]
    assert files.preads <= 3
    log.cut(95)
    assert bounds(log.read(0, 8 << 20)) == [(i, i) for i in range(1, 96)]
    log.write([log_batch(i) for i in range(96, 200)], sync=False)
    assert bounds(log.read(99, 1 << 20)) == [(i, i) for i in range(100, 200)]


def test_what_is_read_is_verified() -> None:
    files = FaultyFiles()
    log, _ = make(files)
    files.flip(DATA / segment_name(5), 80)
    assert bounds(log.read(0, 100)) == [(1, 2)]
    with pytest.raises(CorruptionError, match=segment_name(5)):
        log.read(4, 1000)


@pytest.mark.parametrize("after", range(0, 21, 2))
def test_a_cut_is_durable_and_the_log_goes_on_from_there(after: int) -> None:
    files = FaultyFiles()
    log, made = make(files)
    header = log.cut(after)
    assert (header.last if header else 0) == after
    files.crash()
    seen = Seen()
    found = recover(files, DATA, 330, seen)
    log = found.log
    assert (found.torn, [b.data for b in seen.batches]) == (0, [b.data for b in made[: after // 2]])
    log.write([log_batch(after + 1, 2)], sync=True)
    assert log.read(0, 1 << 20) == b"".join(b.data for b in [*made[: after // 2], log_batch(after + 1, 2)])


def test_a_cut_inside_a_batch_is_refused_and_changes_nothing() -> None:
    files = FaultyFiles()
    log, _ = make(files)
    before = files.snapshot()
    for after in range(1, 20, 2):
        with pytest.raises(BatchBoundaryError, match=f"index {after} is inside the batch"):
            log.cut(after)
    assert files.snapshot() == before


def test_a_failed_sync_is_told() -> None:
    files = FaultyFiles()
    log, _ = make(files, 330, 1)
    files.failing_syncs = 1
    with pytest.raises(SyncError):
        log.write([log_batch(3)], sync=True)


def test_a_segment_header_is_checked() -> None:
    path = DATA / segment_name(7)
    good = segment_header(7)
    assert read_segment_header(good, path) == SegmentHeader(7, clean_to=0, length=HEADER_BYTES)
    for at in range(HEADER_BYTES):
        with pytest.raises(CorruptionError):
            read_segment_header(good[:at] + bytes([good[at] ^ 2]) + good[at + 1 :], path)
    with pytest.raises(CorruptionError, match="first 7"):
        read_segment_header(good, DATA / segment_name(8))


def test_a_newer_segment_is_refused_as_newer(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        newer.setattr("kvstore.segment.WRITTEN", 4)
        header = segment_header(7)
    with pytest.raises(FormatVersionError, match="version 4; this release knows versions up to 3"):
        read_segment_header(header, DATA / segment_name(7))


def test_a_batch_that_tells_of_a_commit_is_found_at_any_distance_and_nothing_else_is() -> None:
    telling = batch(9, put(b"k", b"v"), commit=7)
    noise = b"\x01\x00" * 50
    assert committed_behind(noise + telling, 0, 7)
    assert not committed_behind(noise + telling, 0, 8), "it says nothing of that index"
    assert not committed_behind(noise + telling[:-1], 0, 7), "a batch cut short says nothing"
    assert not committed_behind(telling, 0, 7), "only behind the offset"
