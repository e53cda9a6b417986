"""One thread appends, commits and reads while another flushes; on real files."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest

from kvstore.batch import Record, encode_batch, iter_batches, iter_records
from kvstore.errors import StoreFailedError
from kvstore.files import OsFiles, SyncError
from kvstore.incoming import Position
from kvstore.store import Store, StoreOptions
from tests.support.faulty_files import FaultyFiles
from tests.unit.kvstore.support import PUT, batch, fold, open_store, put


def open_real(directory: Path, segment_bytes: int = 20_000) -> Store:
    options = StoreOptions(segment_bytes=segment_bytes, read_cache_bytes=5_000)
    return Store.open(directory, cluster_id="c", partition=0, options=options)


@pytest.mark.parametrize("seed", range(4))
def test_appends_commits_gets_and_reads_race_with_flushes(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    history: list[Record] = []
    shipped = bytearray()
    flushing: Future[Position] | None = None
    overlapped = 0
    with open_real(tmp_path) as store, ThreadPoolExecutor(1) as worker:
        copied = 0
        for step in range(1500):
            if flushing is None or flushing.done():
                if flushing:
                    store.commit(flushing.result().index)
                flushing = worker.submit(store.flush)
            else:
                overlapped += 1
            first = store.end.index + 1
            records = [
                Record(PUT, b"%d" % random.randrange(50), random.randbytes(random.randrange(200)), step, first + i)
                for i in range(random.randrange(1, 5))
            ]
            store.append(encode_batch(1, first, store.applied, records), trusted=True)
            history += records
            if random.random() < 0.2:
                data = store.read(copied, 3_000)
                shipped += data
                copied = [h.last for h, _ in iter_batches(data)][-1]
            visible = fold(history[: store.applied])
            key = b"%d" % random.randrange(50)
            assert store.get(key) == visible.get(key)
        assert flushing
        flushing.result()
        while data := store.read(copied, 3_000):
            shipped += data
            copied = [h.last for h, _ in iter_batches(data)][-1]
        assert [r for _, b in iter_batches(bytes(shipped)) for r in iter_records(b)] == history
    assert overlapped > 100, "the flushes did run at the same time"
    with open_real(tmp_path) as store:
        assert store.end.index == len(history)
        store.commit(len(history))
        for key, record in fold(history).items():
            assert store.get(key) == record


def test_a_cut_waits_for_the_flush_that_is_under_way(tmp_path: Path) -> None:
    with open_real(tmp_path) as store, ThreadPoolExecutor(1) as worker:
        for _ in range(100):
            after = store.end.index
            for _ in range(10):
                store.append(batch(store.end.index + 1, put(b"k", bytes(500))))
            flushing = worker.submit(store.flush)
            keep = after + 3
            assert store.cut(keep).index == keep
            assert flushing.result().index in {after, after + 3, after + 10}
            assert store.end.index == keep
            assert worker.submit(store.flush).result() == store.durable == store.end
            store.commit(keep)
    with open_real(tmp_path) as store:
        assert store.end.index == 300


def test_a_sync_that_fails_in_the_worker_stops_the_other_thread() -> None:
    files = FaultyFiles()
    store = open_store(files)
    store.append(batch(1, put(b"a", b"1")))
    files.failing_syncs = 1
    with ThreadPoolExecutor(1) as worker, pytest.raises(StoreFailedError) as caught:
        worker.submit(store.flush).result()
    assert isinstance(caught.value.__cause__, SyncError)
    with pytest.raises(StoreFailedError):
        store.append(batch(2, put(b"a", b"1")))


def test_the_whole_model_of_files_is_what_the_real_ones_do(tmp_path: Path) -> None:
    images = []
    for files, directory in ((OsFiles(), tmp_path / "d"), (FaultyFiles(), Path("/d"))):
        store = open_store(files, directory)
        for i in range(1, 30):
            store.append(batch(i, put(b"k%d" % i, bytes(i)), epoch=1 + i // 10))
            store.flush()
        store.cut(17)
        store.close()
        images.append({name: files.read(directory / name) for name in files.list(directory)})
    assert images[0] == images[1]
