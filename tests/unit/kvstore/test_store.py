"""The store's promises, one by one."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kvstore.batch import Record, iter_batches
from kvstore.errors import (
    BatchBoundaryError,
    CorruptionError,
    CutBelowCommitError,
    FormatVersionError,
    LockedError,
    NotAdjoiningError,
    StoreClosedError,
    WrongClusterError,
)
from kvstore.files import OsFiles
from kvstore.making import BatchMaker
from kvstore.meta import META, read_meta, write_meta
from kvstore.sessions import session_key
from tests.support.faulty_files import CrashError, FaultyFiles
from tests.unit.kvstore.support import DATA, PUT, SESSION, Incarnations, batch, delete, fill, open_store, put


def test_a_new_store_is_empty() -> None:
    store = open_store(FaultyFiles(), pod="c-p3-0")
    assert (store.end, store.durable, store.applied, store.commit_hint) == ((0, 0), (0, 0), 0, 0)
    assert (store.epochs, store.keys, store.highest_version, store.log_bytes) == ((), 0, 0, 0)
    assert (store.incarnation, store.identity.pod, dict(store.state)) == ("incarnation-1", "c-p3-0", {})
    assert (store.get(b"k"), store.read(0, 100), store.flush(), store.commit(7)) == (None, b"", (0, 0), 0)


def test_what_is_committed_is_read_with_its_version_and_index() -> None:
    store = open_store(FaultyFiles())
    store.append(batch(1, put(b"a", b"1", 11), put(b"b", b"2", 12)))
    store.append(batch(3, put(b"a", b"3", 13), delete(b"b", 14), commit=2))
    assert store.flush() == (1, 4)
    assert store.commit(4) == 4
    assert store.get(b"a") == Record(PUT, b"a", b"3", 13, 3)
    assert store.get(b"b") is None
    assert (store.keys, store.highest_version, store.commit_hint) == (1, 14, 2)


def test_what_is_not_committed_is_not_seen() -> None:
    store = open_store(FaultyFiles())
    store.append(batch(1, put(b"a", b"1")))
    assert store.get(b"a") is None
    store.flush()
    assert store.get(b"a") is None
    assert store.pending_bytes > 0
    store.commit(1)
    assert store.get(b"a")
    assert store.pending_bytes == 0


def test_what_is_committed_but_not_durable_here_is_not_seen() -> None:
    store = open_store(FaultyFiles())
    store.append(batch(1, put(b"a", b"1")))
    assert store.commit(1) == 0
    assert store.get(b"a") is None
    store.flush()
    assert store.applied == 0, "flush runs in another thread and applies nothing"
    assert store.commit(1) == 1


def test_a_commit_inside_a_batch_shows_that_much_of_it() -> None:
    store = open_store(FaultyFiles())
    store.append(batch(1, put(b"a", b"1"), put(b"b", b"2"), put(b"a", b"3")))
    store.flush()
    assert store.commit(2) == 2
    assert (store.get(b"a"), store.get(b"b")) == (Record(PUT, b"a", b"1", 1, 1), Record(PUT, b"b", b"2", 1, 2))
    assert store.commit(1) == 2, "it does not go back"
    assert store.commit(3) == 3
    assert store.get(b"a") == Record(PUT, b"a", b"3", 1, 3)


def test_a_commit_beyond_the_log_does_not_reach_records_to_come() -> None:
    store = open_store(FaultyFiles())
    fill(store, 1)
    store.commit(99)
    store.append(batch(2, put(b"a", b"another leader's")))
    store.flush()
    store.commit(1)
    assert store.get(b"a") is None
    assert store.committed == 1


def test_a_get_is_one_read_of_the_file() -> None:
    files = FaultyFiles()
    store = open_store(files)
    fill(store, 20)
    files.preads = 0
    assert store.get(b"k7")
    assert files.preads == 1
    assert store.get(b"absent") is None
    assert files.preads == 1


def test_what_was_read_lately_is_not_read_again_until_it_is_written_again() -> None:
    files = FaultyFiles()
    store = open_store(files, record_cache_bytes=1 << 20)
    fill(store, 20)
    files.preads = 0
    for _ in range(3):
        assert store.get(b"k7") == Record(PUT, b"k7", b"v7", 7, 7)
    assert files.preads == 1
    store.append(batch(21, put(b"k7", b"new", 21)))
    store.flush()
    assert store.get(b"k7") == Record(PUT, b"k7", b"v7", 7, 7)
    store.commit(21)
    assert store.get(b"k7") == Record(PUT, b"k7", b"new", 21, 21)
    assert files.preads == 2


def test_a_batch_that_was_made_here_need_not_be_read() -> None:
    """What it changes is what would be found in it."""
    made = BatchMaker(1, 1, 0)
    made.put_all([b"a", b"b"], [b"1", b"2"], 5)
    made.put(b"c", b"3", 7)
    made.delete(b"a", 8)
    made.session(session_key(bytes(16), 9), b"result", 9)
    data = made.seal()
    stores = [open_store(FaultyFiles()) for _ in range(2)]
    stores[0].announce(data, made.folded)
    for store in stores:
        store.append(data, trusted=True)
        store.flush()
        store.commit(made.last)
        assert store.get(b"a") is None
        assert store.get(b"b") == Record(PUT, b"b", b"2", 6, 2)
        assert store.get(b"c") == Record(PUT, b"c", b"3", 7, 3)
        assert store.sessions.lookup(bytes(16), 9) == b"result"
        assert store.highest_version == 9


def test_what_was_announced_and_not_appended_is_forgotten() -> None:
    store = open_store(FaultyFiles())
    made = BatchMaker(1, 1, 0)
    made.put(b"never", b"", 1)
    store.announce(made.seal(), made.folded)
    fill(store, 1)
    assert store.get(b"k1")
    assert store.get(b"never") is None


def test_many_appends_are_one_write_and_one_sync() -> None:
    files = FaultyFiles()
    store = open_store(files, segment_bytes=10_000)
    fill(store, 1)
    files.operations.clear()
    for i in range(2, 12):
        store.append(batch(i, put(b"a", b"1")))
    store.flush()
    store.flush()
    assert files.operations == ["write", "sync"]


def test_without_durability_there_is_no_sync_until_the_end() -> None:
    files = FaultyFiles()
    store = open_store(files, durability="memory", segment_bytes=200)
    files.operations.clear()
    fill(store, 4)
    assert store.durable == (1, 4)
    assert "sync" not in files.operations[files.operations.index("write", 5) :]
    store.close()
    files.crash()
    assert open_store(files).end == (1, 4)


# Appending


def test_a_batch_that_does_not_follow_is_refused() -> None:
    store = open_store(FaultyFiles())
    fill(store, 3, epoch=4)
    for data in (
        batch(3, put(b"a", b"")),
        batch(5, put(b"a", b""), epoch=4),
        batch(4, put(b"a", b""), epoch=3),
        batch(4, put(b"a", b""), epoch=4) + batch(6, put(b"a", b""), epoch=4),
    ):
        with pytest.raises(NotAdjoiningError, match=r"does not follow index [34] of epoch 4"):
            store.append(data)
    with pytest.raises(NotAdjoiningError):
        open_store(FaultyFiles()).append(batch(1, put(b"a", b""), epoch=0))
    assert store.end == (4, 3)


def test_damaged_bytes_are_refused_whole() -> None:
    store = open_store(FaultyFiles())
    good = batch(1, put(b"a", b"1"))
    for at in range(len(good)):
        bad = bytearray(good)
        bad[at] ^= 1
        with pytest.raises(CorruptionError):
            store.append(bytes(bad))
        with pytest.raises(CorruptionError):
            store.append(good[:at])
        with pytest.raises((CorruptionError, NotAdjoiningError)):
            store.append(good + batch(2, put(b"a", b"1"))[:at] + b"x")
    assert store.end == (0, 0)
    assert store.append(good) == (1, 1)


def test_trusted_bytes_are_not_summed_again_but_checked_for_sense() -> None:
    store = open_store(FaultyFiles())
    good = batch(1, put(b"a", b"1"))
    with pytest.raises(CorruptionError):
        store.append(good[:-1], trusted=True)
    assert store.append(good, trusted=True) == (1, 1)


# Epochs


def test_epochs_are_known_before_and_after_a_restart() -> None:
    files = FaultyFiles()
    store = open_store(files)
    fill(store, 2, epoch=3)
    store.append(batch(3, put(b"a", b""), epoch=4) + batch(4, put(b"a", b""), epoch=7))
    assert store.epochs == ((3, 1), (4, 3), (7, 4))
    store.flush()
    files.crash()
    assert open_store(files).epochs == ((3, 1), (4, 3), (7, 4))


def test_an_epoch_is_on_the_disk_before_its_first_batch() -> None:
    files = FaultyFiles()
    store = open_store(files, segment_bytes=10_000)
    fill(store, 1)
    files.operations.clear()
    store.append(batch(2, put(b"a", b""), epoch=2))
    store.flush()
    replaced = ["create", "write", "sync", "rename", "sync directory"]
    assert files.operations == [*replaced, "write", "sync"]
    files.operations.clear()
    store.append(batch(3, put(b"a", b""), epoch=2))
    store.flush()
    assert files.operations == ["write", "sync"]


def test_an_epoch_whose_first_batch_never_came_is_forgotten() -> None:
    files = FaultyFiles()
    store = open_store(files)
    fill(store, 1)
    store.append(batch(2, put(b"a", b""), epoch=2))
    files.crash_in = 6
    with pytest.raises(Exception, match="write"):
        store.flush()
    files.crash()
    store = open_store(files)
    assert store.end == (1, 1)
    assert store.epochs == ((1, 1),)
    store.append(batch(2, put(b"a", b""), epoch=3))
    store.close()
    assert open_store(files).epochs == ((1, 1), (3, 2))


# Cutting


def test_a_cut_takes_what_was_durable_and_what_was_not() -> None:
    files = FaultyFiles()
    store = open_store(files)
    fill(store, 4, commit=False)
    fill(store, 2, epoch=2, commit=False)
    store.append(batch(7, put(b"x", b""), epoch=3))
    store.commit(2)
    assert store.cut(6) == (2, 6)
    assert store.epochs == ((1, 1), (2, 5))
    assert store.cut(3) == (1, 3)
    assert store.durable == (1, 3)
    assert list(store.epochs) == [(1, 1)]
    store.append(batch(4, put(b"new", b"1"), epoch=9))
    store.flush()
    assert [(h.epoch, h.last) for h, _ in iter_batches(store.read(0, 9999))] == [(1, 1), (1, 2), (1, 3), (9, 4)]
    store.commit(4)
    assert (store.keys, store.get(b"k4"), store.get(b"k5")) == (4, None, None)
    assert store.get(b"new")
    files.crash()
    store = open_store(files)
    assert (store.end, store.epochs) == ((9, 4), ((1, 1), (9, 4)))
    store.commit(4)
    assert store.get(b"k4") is None
    assert store.get(b"new")


def test_what_is_cut_before_it_was_written_is_never_written() -> None:
    files = FaultyFiles()
    store = open_store(files)
    store.append(batch(1, put(b"a", b"1")) + batch(2, put(b"b", b"1")))
    assert store.cut(1) == (1, 1)
    assert store.flush() == (1, 1)
    files.crash()
    assert open_store(files).end == (1, 1)


def test_a_cut_at_the_end_is_nothing() -> None:
    store = open_store(FaultyFiles())
    fill(store, 3)
    assert store.cut(3) == (1, 3)


def test_a_cut_of_what_is_committed_is_refused() -> None:
    store = open_store(FaultyFiles())
    fill(store, 5, commit=False)
    store.commit(3)
    with pytest.raises(CutBelowCommitError, match="behind index 2 would take committed records: 3 is committed"):
        store.cut(2)
    store.append(batch(6, put(b"a", b""), commit=5))
    with pytest.raises(CutBelowCommitError, match="5 is committed"):
        store.cut(4)
    assert store.end == (1, 6)


def test_a_cut_inside_a_batch_is_refused_and_changes_nothing() -> None:
    store = open_store(FaultyFiles())
    fill(store, 1)
    store.append(batch(2, put(b"a", b""), put(b"b", b"")))
    with pytest.raises(BatchBoundaryError):
        store.cut(2)
    store.flush()
    with pytest.raises(BatchBoundaryError):
        store.cut(2)
    with pytest.raises(NotAdjoiningError, match="the log ends at 3"):
        store.cut(4)
    assert store.end == store.durable == (1, 3)
    store.commit(3)
    assert store.keys == 3


# Sessions


def test_sessions_are_known_once_committed_and_after_a_restart() -> None:
    files = FaultyFiles()
    store = open_store(files)
    client = b"c" * 16
    store.append(batch(1, Record(SESSION, session_key(client, 5), b"done", 9)))
    store.flush()
    assert store.sessions.lookup(client, 5) is None
    store.commit(1)
    assert store.sessions.lookup(client, 5) == b"done"
    store.append(batch(2, put(b"a", b""), commit=1))
    store.close()
    assert open_store(files).sessions.lookup(client, 5) == b"done"


# Restarts


def test_after_a_restart_the_commit_hint_is_applied_and_the_rest_waits() -> None:
    files = FaultyFiles()
    store = open_store(files)
    fill(store, 9)
    store.append(batch(10, put(b"a", b"uncommitted"), commit=9))
    store.flush()
    files.crash()
    store = open_store(files)
    assert (store.end.index, store.durable.index, store.applied, store.commit_hint, store.keys) == (10, 10, 9, 9, 9)
    assert store.get(b"a") is None
    store.commit(10)
    assert store.get(b"a") == Record(PUT, b"a", b"uncommitted", 1, 10)


def test_a_start_syncs_what_it_found_before_it_says_where_it_ends() -> None:
    files = FaultyFiles()
    store = open_store(files, durability="memory")
    fill(store, 3)
    files.locked.clear()  # the process died; the page cache did not
    store = open_store(files, boot_id="same")
    assert store.durable == (1, 3)
    files.crash()
    assert open_store(files).end == (1, 3)


def test_closing_writes_what_is_queued() -> None:
    files = FaultyFiles()
    with open_store(files) as store:
        store.append(batch(1, put(b"a", b"")))
    files.crash()
    assert open_store(files).end == (1, 1)


def test_a_closed_store_says_so() -> None:
    store = open_store(FaultyFiles())
    store.close()
    store.close()
    calls: list[Callable[[], object]] = [
        store.flush,
        store.wipe_for_rebuild,
        lambda: store.get(b"a"),
        lambda: store.commit(1),
        lambda: store.read(0, 1),
        lambda: store.append(b""),
        lambda: store.cut(0),
        lambda: store.save_state({}),
    ]
    for call in calls:
        with pytest.raises(StoreClosedError, match="is closed"):
            call()


def test_the_replication_state_survives() -> None:
    files = FaultyFiles()
    store = open_store(files)
    store.save_state({"accepted_epoch": 4, "in_sync": ["a", "b"]})
    files.crash()
    store = open_store(files)
    assert store.state == {"accepted_epoch": 4, "in_sync": ["a", "b"]}
    with pytest.raises(TypeError):
        store.save_state({"what": b"is not JSON"})
    assert store.state["accepted_epoch"] == 4


# Refusals at the door


def test_a_directory_in_use_is_refused() -> None:
    files = FaultyFiles()
    store = open_store(files)
    with pytest.raises(LockedError):
        open_store(files)
    store.close()
    open_store(files)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"cluster_id": "another"}, "not to cluster another"), ({"partition": 4}, "not to partition 4")],
)
def test_another_clusters_disk_is_refused_untouched(arguments: dict[str, Any], says: str) -> None:
    files = FaultyFiles()
    with open_store(files) as store:
        fill(store, 3)
    before = files.snapshot()
    for rebuild in (False, True):
        with pytest.raises(WrongClusterError, match=says):
            open_store(files, rebuild=rebuild, **arguments)
    assert files.snapshot() == before
    assert open_store(files).end == (1, 3)


@pytest.mark.parametrize(
    ("version", "number"),
    [("kvstore.sealed.FORMAT_VERSION", 2), ("kvstore.segment.WRITTEN", 4), ("kvstore.batch.FORMAT_VERSION", 2)],
)
def test_a_newer_format_is_refused_untouched(version: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    files = FaultyFiles()
    with monkeypatch.context() as newer:
        newer.setattr(version, number)
        with open_store(files) as store:
            fill(store, 30)
    before = files.snapshot()
    known = f"format version {number}; this release knows versions up to {number - 1}"
    with pytest.raises(FormatVersionError, match=known):
        open_store(files)
    assert files.snapshot() == before


def test_a_log_without_its_meta_file_is_refused() -> None:
    files = FaultyFiles()
    with open_store(files) as store:
        fill(store, 3)
    files.remove(DATA / META)
    with pytest.raises(CorruptionError, match=r"missing, but 0{19}1\.log is there"):
        open_store(files)


def test_a_real_directory_of_another_cluster_keeps_every_byte(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    with open_store(OsFiles(), directory) as store:
        fill(store, 3)
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in directory.iterdir()}
    with pytest.raises(WrongClusterError):
        open_store(OsFiles(), directory, cluster_id="another")
    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in directory.iterdir()} == before


# Incarnations


def test_a_wiped_store_is_empty_and_another() -> None:
    files = FaultyFiles()
    store = open_store(files)
    store.save_state({"accepted_epoch": 4})
    fill(store, 12)
    store.append(batch(13, put(b"a", b"")))
    assert store.wipe_for_rebuild() == store.incarnation == "incarnation-2"
    assert (store.end, store.durable, store.applied, store.keys, store.epochs) == ((0, 0), (0, 0), 0, 0, ())
    assert (store.state, store.log_bytes, store.flush(), store.read(0, 9)) == ({"accepted_epoch": 4}, 0, (0, 0), b"")
    fill(store, 2, epoch=6)
    files.crash()
    store = open_store(files)
    assert (store.incarnation, store.end, store.epochs) == ("incarnation-2", (6, 2), ((6, 1),))


@pytest.mark.parametrize("step", range(1, 25))
def test_a_wipe_that_a_crash_cuts_short_is_all_or_none_after_the_next_start(step: int) -> None:
    files = FaultyFiles()
    store = open_store(files)
    fill(store, 9)
    files.crash_in = step
    with contextlib.suppress(CrashError):
        store.wipe_for_rebuild()
    files.crash()
    store = open_store(files)
    assert (store.incarnation, store.end.index) in {("incarnation-1", 9), ("incarnation-2", 0)}
    assert not store.identity.wiping


@pytest.mark.parametrize(
    ("first_boot", "second_boot", "clean", "lost"),
    [("b1", "b1", False, False), ("b1", "b2", False, True), ("", "", False, True), ("b1", "b2", True, False)],
)
@pytest.mark.parametrize("second", ["memory", "fsync"])
def test_an_unsynced_run_needs_a_clean_end_or_the_same_boot(
    first_boot: str, second_boot: str, clean: bool, lost: bool, second: str
) -> None:
    files = FaultyFiles()
    incarnations = Incarnations()
    store = open_store(files, durability="memory", boot_id=first_boot, new_incarnation=incarnations)
    fill(store, 3)
    if clean:
        store.close()
    files.locked.clear()
    store = open_store(files, durability=second, boot_id=second_boot, new_incarnation=incarnations)
    assert store.incarnation_lost == lost
    assert store.incarnation == ("incarnation-2" if lost else "incarnation-1")
    assert store.end == (1, 3), "what is left is a prefix that catching up can use"


def test_a_run_with_syncs_keeps_its_incarnation() -> None:
    files = FaultyFiles()
    open_store(files, boot_id="b1")
    files.crash()
    store = open_store(files, boot_id="b2")
    assert (store.incarnation, store.incarnation_lost) == ("incarnation-1", False)


def test_what_an_interrupted_write_of_meta_left_is_removed() -> None:
    files = FaultyFiles()
    open_store(files).close()
    files.open(DATA / "meta.tmp", create=True)
    files.open(DATA / "lost+found", create=True)
    open_store(files)
    assert files.list(DATA) == ["lost+found", "meta"]


def test_a_wipe_begun_by_an_earlier_run_is_finished() -> None:
    files = FaultyFiles()
    with open_store(files) as store:
        fill(store, 3)
    meta = read_meta(files, DATA)
    assert meta
    write_meta(files, DATA, replace(meta, wiping=True, incarnation="decided"))
    store = open_store(files)
    assert (store.end.index, store.incarnation, store.identity.wiping) == (0, "decided", False)
