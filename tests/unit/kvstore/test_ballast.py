"""The room kept back: given up by the write that finds none otherwise, and kept back again when there is some."""

import errno
from pathlib import Path
from typing import Any

import pytest

from kvstore.ballast import BALLAST, Ballast
from kvstore.errors import StoreFailedError
from kvstore.files import Files, OsFiles
from kvstore.store import Store
from tests.support.faulty_files import FaultyFiles
from tests.unit.kvstore.support import DATA, fill, maintain, open_store

BYTES = 4000


def full(files: FaultyFiles, left: int = 0) -> None:
    files.capacity = sum(files.sizes()) + left


def store_on(files: FaultyFiles, **options: Any) -> Store:
    return open_store(files, ballast_bytes=BYTES, **options)


@pytest.mark.parametrize("files", [OsFiles(), FaultyFiles()])
def test_it_takes_room_and_gives_it_back(files: Files, tmp_path: Path) -> None:
    ballast = Ballast(files, tmp_path, BYTES)
    assert ballast.short
    ballast.hold()
    assert not ballast.short
    assert len(files.read(tmp_path / BALLAST)) == BYTES
    tries: list[str] = []

    def finds_no_room_at_first(what: str) -> str:
        tries.append(what)
        if len(tries) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return f"{what} done"

    assert ballast.write(finds_no_room_at_first, "write") == "write done"
    assert tries == ["write", "write"]
    assert ballast.short
    assert files.list(tmp_path) == []


def test_none_is_never_short_and_never_tries_again(tmp_path: Path) -> None:
    files = FaultyFiles(capacity=10)
    ballast = Ballast(files, tmp_path, 0)
    ballast.hold()
    assert (ballast.short, files.list(tmp_path)) == (False, [])
    with pytest.raises(OSError, match="No space left"):
        ballast.write(files.open(tmp_path / "x", create=True).write, bytes(11), 0)


def test_only_want_of_room_has_it_given_up(tmp_path: Path) -> None:
    files = FaultyFiles()
    ballast = Ballast(files, tmp_path, BYTES)
    ballast.hold()
    files.failing_writes = 1
    with pytest.raises(OSError, match="Input/output error"):
        ballast.write(files.open(tmp_path / "x", create=True).write, bytes(11), 0)
    assert not ballast.short


@pytest.mark.parametrize(("left", "short"), [(2 * BYTES - 1, True), (2 * BYTES, False)])
def test_it_takes_no_more_than_half_of_what_is_left(tmp_path: Path, left: int, short: bool) -> None:
    ballast = Ballast(FaultyFiles(capacity=left), tmp_path, BYTES)
    ballast.hold()
    assert ballast.short == short


def test_what_the_last_run_kept_back_is_kept_back_still_on_a_full_disk(tmp_path: Path) -> None:
    files = FaultyFiles()
    Ballast(files, tmp_path, BYTES).hold()
    full(files)
    again = Ballast(files, tmp_path, BYTES)
    again.hold()
    assert not again.short


def test_a_disk_on_which_no_room_can_be_kept_back_has_none_and_is_not_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FaultyFiles()

    def refuses(path: Path, size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(files, "allocate", refuses)
    ballast = Ballast(files, tmp_path, BYTES)
    ballast.hold()
    assert not ballast.short


def test_a_store_on_a_full_disk_ends_what_was_begun_and_is_short_of_room_until_there_is_some() -> None:
    """Batches that need a segment, the epochs' file and the state; then the ballast is used up, which fails as ever."""
    files = FaultyFiles()
    store = store_on(files)
    fill(store, 3)
    full(files)
    assert not store.short_of_room
    fill(store, 10)
    assert store.short_of_room
    fill(store, 1, epoch=2)
    store.save_state({"some": "state"})
    maintain(store)
    assert store.short_of_room, "there is no room to keep back"
    assert store.keys == store.applied == 14
    files.capacity = None
    store.maintain()
    assert not store.short_of_room
    full(files)
    with pytest.raises(StoreFailedError, match="No space left on device"):
        fill(store, 1000, epoch=2)
    durable = store.durable.index
    assert durable > 14
    store.close()
    files.capacity = None
    store = store_on(files)
    assert (store.end.index, store.state) == (durable, {"some": "state"})


@pytest.mark.parametrize("left", range(0, 700, 13))
def test_whatever_write_finds_no_room_it_is_done(left: int) -> None:
    files = FaultyFiles()
    store = store_on(files)
    fill(store, 3)
    full(files, left)
    for epoch in range(2, 9):
        fill(store, 1, epoch=epoch)
        store.save_state({"epoch": epoch})
    assert store.short_of_room
    files.stop()
    files.capacity = None
    store = store_on(files)
    assert (store.end.epoch, store.end.index, store.state) == (8, 10, {"epoch": 8})


def test_zeros_ahead_hints_and_compaction_do_not_use_it() -> None:
    files = FaultyFiles()
    store = store_on(files, preallocate_bytes=100_000, segment_bytes=200_000)
    full(files, 1000)
    fill(store, 3)
    assert not store.short_of_room
    store.close()
    files.capacity = None
    store = store_on(files, compaction=False)
    fill(store, 40)
    full(files, 50)
    files.told_free = 1 << 40  # it was so, when the store asked
    with pytest.raises(OSError, match="No space left"):
        maintain(store)  # the first hint
    assert not store.short_of_room


def test_a_sync_that_fails_as_it_is_given_up_is_final() -> None:
    """Like any other (rule 4): the store does no more, and the next run knows."""
    files = FaultyFiles()
    store = store_on(files)
    fill(store, 3)
    full(files)
    files.failing_syncs = 1
    with pytest.raises(StoreFailedError):
        fill(store, 1)
    with pytest.raises(StoreFailedError):
        store.flush()
    files.stop()
    with pytest.raises(StoreFailedError, match="a sync failed"):
        store_on(files)


def test_a_wipe_leaves_it() -> None:
    files = FaultyFiles()
    store = store_on(files)
    fill(store, 3)
    store.wipe_for_rebuild()
    assert not store.short_of_room
    assert BALLAST in files.list(DATA)
