"""What a start reads: the hints and the end of the log, which grow with the keys, not with what was ever written."""

from collections import Counter

import pytest

from kvstore.hint import hint_path
from kvstore.segment import LONGEST_HEADER_BYTES
from kvstore.store import Store
from tests.support.faulty_files import FaultyFiles, Inode
from tests.unit.kvstore.support import DATA, batch, maintain, open_store, put

SEGMENT = 4096
KEYS = 50


class CountedFiles(FaultyFiles):
    """Counts the bytes that are read of each file."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes_read: Counter[str] = Counter()

    def read_step(self, inode: Inode, start: int, end: int) -> None:
        name = next(path.name for path, seen in self.seen.items() if seen is inode)
        self.bytes_read[name] += max(0, min(end, len(inode.data)) - start)
        super().read_step(inode, start, end)


def overwrite(store: Store, rounds: int) -> None:
    """Write every key so many times, all of it committed."""
    for _ in range(rounds * KEYS):
        index = store.end.index + 1
        store.append(batch(index, put(b"k%d" % (index % KEYS), b"%50d" % index, index), commit=store.applied))
        store.flush()
        store.commit(index)


def written(rounds: int, *, compaction: bool) -> CountedFiles:
    """A disk after so many rounds, and all upkeep, with the reads counted from here on."""
    files = CountedFiles()
    with open_store(files, segment_bytes=SEGMENT, compaction=compaction) as store:
        overwrite(store, rounds)
        maintain(store)
    files.bytes_read.clear()
    return files


def start(files: CountedFiles) -> Counter[str]:
    """Bytes read of each file by a start, after which every key is there."""
    with open_store(files, segment_bytes=SEGMENT) as store:
        read = Counter(files.bytes_read)
        assert store.keys == KEYS
    return read


@pytest.mark.parametrize("compaction", [False, True])
def test_a_start_with_hints_reads_no_record_of_a_sealed_segment(compaction: bool) -> None:
    files = written(20, compaction=compaction)
    *sealed, last = [DATA / name for name in files.list(DATA) if name.endswith(".log")]
    assert sealed
    read = start(files)
    for segment in sealed:
        assert read[segment.name] <= LONGEST_HEADER_BYTES
        assert read[hint_path(segment).name] > 0
    assert read[last.name] >= len(files.read(last)), "what a crash may have torn is verified"


def test_a_start_without_a_hint_reads_that_segment_and_no_other() -> None:
    files = written(20, compaction=False)
    first, second, *_ = [DATA / name for name in files.list(DATA) if name.endswith(".log")]
    files.remove(hint_path(first))
    read = start(files)
    assert read[first.name] >= len(files.read(first))
    assert read[second.name] <= LONGEST_HEADER_BYTES


def test_what_a_start_reads_grows_with_the_keys_and_not_with_the_overwrites() -> None:
    few, many = (start(written(rounds, compaction=True)) for rounds in (10, 100))
    assert many.total() <= few.total() + SEGMENT
