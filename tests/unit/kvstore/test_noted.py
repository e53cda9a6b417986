"""Notes of segments: which records compaction looks at, and that it writes the same as if it had looked at all."""

from functools import partial
from typing import Any
from unittest.mock import patch

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from kvstore import maintenance, noted, segment
from kvstore.batch import CRC_BYTES, Record, RecordType, check_batch
from kvstore.folded import fold_records
from kvstore.index.hash import MAX_LISTED, HashIndex
from kvstore.log import LogBatch
from kvstore.noted import Notes
from kvstore.segment import HEADER_BYTES, RECYCLED_HEADER_BYTES
from kvstore.sessions import session_key
from tests.support.faulty_files import FaultyFile, FaultyFiles
from tests.unit.kvstore.support import EPOCH, SESSION, batch, delete, maintain, open_store, put, write

CLIENT = b"%016d" % 1


class Asked(HashIndex):
    """Counts what it is asked for; `lists` False: it never gives a list of places."""

    def __init__(self, *, lists: bool = True) -> None:
        super().__init__()
        self.asked = 0
        self._lists = lists
        known = self.get

        def get(key: bytes) -> int | None:
            self.asked += 1
            return known(key)

        self.get = get

    def places_in(self, segments: Any) -> list[int] | None:
        return super().places_in(segments) if self._lists else None


def note(notes: Notes, segment: int, offset: int, *records: Record, epoch: int = 1) -> int:
    """Add a batch; where it ends."""
    data = batch(1, *records, epoch=epoch)
    header = check_batch(data)
    notes.add(LogBatch(header, data, segment, offset), fold_records(data, header))
    return offset + header.length


def test_a_note_is_of_a_segment_from_its_beginning_to_its_end() -> None:
    notes = Notes()
    middle = note(notes, 1, HEADER_BYTES, put(b"a", b"1", 7))
    assert notes.of(1, middle) is not None
    end = note(notes, 1, middle, delete(b"a", 9), put(b"b", b"2", 8))
    found = notes.of(1, end)
    assert found is not None
    assert (found.records, found.highest, list(found.others)) == (3, 9, [middle + 46])
    assert notes.of(1, end + 1) is None, "something was not noted"
    note(notes, 2, middle, put(b"a", b"1"))
    assert notes.of(2, middle) is None, "nor was its beginning"
    behind = note(notes, 1, end + 50, put(b"a", b"1"))
    assert notes.of(1, behind) is None, "nor what was between"


def test_a_recycled_segment_is_noted_from_its_beginning_too() -> None:
    """Its header is longer; still no second batch can begin where its first one does."""
    notes = Notes()
    end = note(notes, 1, RECYCLED_HEADER_BYTES, put(b"a", b"1", 7))
    assert notes.of(1, end) is not None
    assert HEADER_BYTES + len(batch(1, Record(EPOCH, b"", b"", 1))) > RECYCLED_HEADER_BYTES


def test_the_oldest_notes_go_when_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noted, "MAX_NOTED", 5)
    notes = Notes()
    ends = [note(notes, n, HEADER_BYTES, *[delete(b"%d" % i) for i in range(3)]) for n in range(4)]
    assert [notes.of(n, end) is not None for n, end in enumerate(ends)] == [False, False, True, True]


def test_of_few_keys_that_are_often_written_not_every_record_is_looked_at() -> None:
    index = Asked()
    store = open_store(FaultyFiles(), index=lambda: index, segment_bytes=1_500_000)
    for _ in range(200):
        write(store, *[put(b"k%d" % n, bytes(1000)) for n in range(10)])
    index.asked = 0
    maintain(store)
    assert store.progress.compactions
    assert index.asked < 200, "of 1,400 records: those of the batches at which garbage is estimated, and the newest"


def test_what_no_longer_counts_is_not_read() -> None:
    """Nor are its neighbours where little counts: a delete that does, results of a client's batches of which most are forgotten."""
    files = FaultyFiles()
    sizes: list[int] = []
    store = open_store(files, segment_bytes=1_500_000)
    store._applier.sessions._batches = 3
    read = FaultyFile.pread

    def counted(file: FaultyFile, length: int, offset: int) -> bytes:
        sizes.append(length)
        return read(file, length, offset)

    for again in range(3):  # the first segments are new files, the later ones those of the first
        before = store.progress.compactions
        write(store, put(b"stays", b"1"), delete(b"gone", 2))
        for n in range(200 * again, 200 * again + 200):
            result = Record(SESSION, session_key(CLIENT, n), b"done", n + 3)
            write(store, *[put(b"k%d" % k, bytes(1000), n + 3) for k in range(10)], result)
        sealed = store._log.segments[-2]
        with patch.object(FaultyFile, "pread", counted):
            maintain(store)
        assert store.progress.compactions > before
        assert sum(sizes) < 10_000, "of 1.5 MB"
        sizes.clear()
    assert sealed.recycled


def test_what_is_read_of_single_records_counts_for_the_rate() -> None:
    store = open_store(FaultyFiles(), segment_bytes=1_500_000)
    for n in range(30):
        write(store, put(b"k%d" % (n if n < 10 else n % 5), bytes(100_000), n + 1))
    read: list[int] = []
    spent: list[int] = []
    pread, spend = FaultyFile.pread, maintenance.Pace.spend

    def counted(file: FaultyFile, length: int, offset: int) -> bytes:
        read.append(length)
        return pread(file, length, offset)

    def counted_too(pace: maintenance.Pace, count: int) -> None:
        spent.append(count)
        spend(pace, count)

    with patch.object(FaultyFile, "pread", counted), patch.object(maintenance.Pace, "spend", counted_too):
        maintain(store)
    assert store.progress.compactions
    assert sum(read) > 500_000, "half of the first segment counts"
    assert sum(spent) >= sum(read)


def test_a_segment_of_two_epochs_is_not_noted() -> None:
    """What lies between its records would not tell where one ends."""
    notes = Notes()
    middle = note(notes, 1, HEADER_BYTES, put(b"a", b"1"))
    end = note(notes, 1, middle, put(b"b", b"1"), epoch=2)
    assert notes.of(1, end) is None


def test_of_more_keys_than_are_listed_at_once_every_record_is_looked_at() -> None:
    index = HashIndex()
    index.apply({b"%d" % n: n for n in range(MAX_LISTED)}, 1)
    assert index.places_in({0}) is not None
    index.apply({b"one more": 0}, 2)
    assert index.places_in({0}) is None


keys = st.sampled_from([b"a", b"b", b"c", b"a longer key"])
records = st.one_of(
    st.builds(put, keys, st.binary(max_size=40)),
    st.builds(delete, keys),
    st.builds(lambda n, r: Record(SESSION, session_key(CLIENT, n), r, 1), st.integers(0, 5), st.binary(max_size=9)),
    st.just(Record(EPOCH, b"", b"", 1)),
)
steps = st.one_of(st.lists(records, min_size=1, max_size=4), st.sampled_from(["maintain", "again", "purge", "part"]))


@settings(deadline=None, max_examples=150)
@given(st.lists(steps, max_size=60), st.integers(0, 3), st.sampled_from([1, 200, 4096]), st.sampled_from([1, 150]))
def test_what_is_written_is_the_same(script: list[Any], behind: int, sparse: int, mark_every: int) -> None:
    """As without notes: the files of two stores with one history, the last batches of which are not committed."""
    with patch.object(maintenance, "_SPARSE", sparse), patch.object(segment, "_MARK_EVERY", mark_every):
        both_write_the_same(script, behind)


def both_write_the_same(script: list[Any], behind: int) -> None:
    outcomes = []
    for lists in (True, False):
        files = FaultyFiles()
        options: dict[str, Any] = {"index": partial(Asked, lists=lists), "segment_bytes": 300}
        store = open_store(files, **options)
        for at, step in enumerate(script):
            if step == "maintain":
                maintain(store)
            elif step == "purge":
                store.allow_purge(store.end.index)
            elif step == "again":
                store.close()
                store = open_store(files, **options)
            elif step == "part":
                write(store, put(b"a", b"1"), delete(b"b"), commit=False)
                store.commit(store.end.index - 1)
            else:
                numbered = [r._replace(version=store.end.index + 1 + i) for i, r in enumerate(step)]
                write(store, *numbered, commit=at < len(script) - behind)
        maintain(store)
        found = {k: store.get(k) for k in (b"a", b"b", b"c", b"a longer key")}
        progress = store.progress
        store.close()
        outcomes.append((files.snapshot(), found, progress))
    assert outcomes[0] == outcomes[1]


def test_what_is_no_put_is_noted_of_every_type() -> None:
    made = [delete(b"a", 1), Record(SESSION, session_key(CLIENT, 1), b"r", 2), Record(EPOCH, b"", b"", 3)]
    data = batch(1, *made, put(b"a", b"1", 4))
    folded = fold_records(data, check_batch(data))
    offsets = [*folded.others, *(at for *_, at in folded.sessions)]
    assert [data[at + CRC_BYTES] for at in offsets] == [RecordType.DELETE, RecordType.EPOCH, RecordType.SESSION]
