"""The file-system seam: the real one and the faulty one keep the same promises."""

import os
from pathlib import Path
from random import Random

import pytest

from kvstore.errors import LockedError
from kvstore.files import Files, OsFiles, SyncError, replace_file
from tests.support.faulty_files import CrashError, FaultyFiles


@pytest.fixture(params=[OsFiles, FaultyFiles])
def files(request: pytest.FixtureRequest) -> Files:
    made: Files = request.param()
    return made


@pytest.fixture
def directory(files: Files, tmp_path: Path) -> Path:
    path = tmp_path / "a" / "b"
    files.make_directory(path)
    files.make_directory(path)
    return path


def test_what_is_appended_is_read(files: Files, directory: Path) -> None:
    file = files.open(directory / "x", create=True)
    file.append(b"hello ")
    file.append(b"world")
    file.sync()
    assert (file.size(), file.pread(5, 6), file.pread(99, 6), file.pread(9, 99)) == (11, b"world", b"world", b"")
    file.truncate(4)
    file.append(b"!")
    assert files.read(directory / "x") == b"hell!"
    file.close()
    file.close()
    assert files.open(directory / "x").pread(9, 0) == b"hell!"


def test_names(files: Files, directory: Path) -> None:
    for name in ("b", "a"):
        files.open(directory / name, create=True).close()
    assert files.list(directory) == ["a", "b"]
    with pytest.raises(FileExistsError):
        files.open(directory / "a", create=True)
    files.rename(directory / "a", directory / "c")
    files.remove(directory / "b")
    files.sync_directory(directory)
    assert files.list(directory) == ["c"]
    for missing in (files.open, files.read, files.remove):
        with pytest.raises(FileNotFoundError):
            missing(directory / "a")
    assert files.free_bytes(directory) > 0


def test_a_file_is_replaced_as_a_whole(files: Files, directory: Path) -> None:
    for content in (b"one", b"two"):
        replace_file(files, directory / "x", content)
        assert files.read(directory / "x") == content
    assert files.list(directory) == ["x"]


def test_what_an_interrupted_replacement_left_is_in_nobodys_way(files: Files, directory: Path) -> None:
    files.open(directory / "x.tmp", create=True).close()
    replace_file(files, directory / "x", b"new")
    assert files.list(directory) == ["x"]


def test_a_directory_is_locked_once(files: Files, directory: Path) -> None:
    lock = files.lock_directory(directory)
    with pytest.raises(LockedError, match=str(directory)):
        files.lock_directory(directory)
    lock.release()
    files.lock_directory(directory).release()
    assert files.list(directory) == []


def test_the_error_names_the_process_that_holds_the_lock(tmp_path: Path) -> None:
    lock = OsFiles().lock_directory(tmp_path)
    with pytest.raises(LockedError, match=f"process {os.getpid()}|another process"):
        OsFiles().lock_directory(tmp_path)
    lock.release()


def test_a_real_sync_that_fails_is_a_sync_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    file = OsFiles().open(tmp_path / "x", create=True)
    with pytest.raises(SyncError, match="Input/output"):
        file.sync()
    file.close()


def test_a_real_short_write_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data[:3])))
    file = OsFiles().open(tmp_path / "x", create=True)
    file.append(b"0123456789")
    assert file.pread(99, 0) == b"0123456789"
    file.close()


def test_a_real_short_read_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pread = os.pread
    file = OsFiles().open(tmp_path / "x", create=True)
    file.append(b"0123456789")
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: pread(fd, min(length, 3), offset))
    assert file.pread(8, 1) == b"12345678"
    assert file.pread(99, 1) == b"123456789"
    file.close()


# The faulty one's faults

DATA = Path("/d")


def test_a_crash_takes_what_was_not_synced() -> None:
    files = FaultyFiles()
    file = files.open(DATA / "x", create=True)
    file.append(b"synced")
    file.sync()
    files.open(DATA / "nameless", create=True).sync()
    files.sync_directory(DATA)
    files.open(DATA / "later", create=True).sync()
    file.append(b"lost")
    files.remove(DATA / "nameless")
    files.crash()
    assert (files.list(DATA), files.read(DATA / "x")) == (["nameless", "x"], b"synced")
    with pytest.raises(OSError, match="gone"):
        file.append(b"from the grave")


def test_a_crash_may_keep_or_tear_what_was_not_synced() -> None:
    found = set()
    for seed in range(200):
        files = FaultyFiles()
        file = files.open(DATA / "x", create=True)
        file.append(b"ab")
        file.sync()
        files.sync_directory(DATA)
        file.append(b"cd")
        files.open(DATA / "y", create=True)
        files.crash(Random(seed))
        found.add((files.read(DATA / "x"), len(files.list(DATA))))
    assert {(b"ab", 1), (b"abc", 2), (b"abcd", 1), (b"abcd", 2), (b"abc\0", 1), (b"ab\0\0", 2)} <= found
    assert all(data.startswith(b"ab") for data, _ in found)


def test_a_crash_comes_at_the_operation_named() -> None:
    files = FaultyFiles()
    files.crash_in = 3
    file = files.open(DATA / "x", create=True)
    file.append(b"ab")
    with pytest.raises(CrashError):
        file.append(b"cd")
    assert files.operations == ["create", "append", "append"]


def test_a_full_disk_takes_what_it_has_room_for() -> None:
    files = FaultyFiles(capacity=5)
    file = files.open(DATA / "x", create=True)
    file.append(b"abc")
    with pytest.raises(OSError, match="No space left"):
        file.append(b"def")
    assert file.pread(9, 0) == b"abcde"


def test_a_failing_sync_writes_nothing() -> None:
    files = FaultyFiles()
    file = files.open(DATA / "x", create=True)
    files.sync_directory(DATA)
    file.append(b"abc")
    files.failing_syncs = 1
    with pytest.raises(SyncError):
        file.sync()
    files.crash()
    assert files.read(DATA / "x") == b""
