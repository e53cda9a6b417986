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


def test_a_linked_file_outlasts_its_first_name(files: Files, directory: Path) -> None:
    files.open(directory / "x", create=True).write(b"hello", 0)
    files.link(directory / "x", directory / "y")
    with pytest.raises(FileExistsError):
        files.link(directory / "x", directory / "y")
    files.remove(directory / "x")
    assert files.list(directory) == ["y"]
    assert files.read(directory / "y") == b"hello"


def test_what_is_written_is_read(files: Files, directory: Path) -> None:
    file = files.open(directory / "x", create=True)
    file.write(b"hello ", 0)
    file.write(b"world", 6)
    file.sync()
    assert (file.size(), file.pread(5, 6), file.pread(99, 6), file.pread(9, 99)) == (11, b"world", b"world", b"")
    file.truncate(4)
    file.write(b"!", 4)
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
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: write(fd, bytes(data[:3]), offset))
    file = OsFiles().open(tmp_path / "x", create=True)
    file.write(b"0123456789", 0)
    assert file.pread(99, 0) == b"0123456789"
    file.close()


def test_a_real_short_read_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pread = os.pread
    file = OsFiles().open(tmp_path / "x", create=True)
    file.write(b"0123456789", 0)
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: pread(fd, min(length, 3), offset))
    assert file.pread(8, 1) == b"12345678"
    assert file.pread(99, 1) == b"123456789"
    file.close()


# The faulty one's faults

DATA = Path("/d")


def test_a_crash_takes_what_was_not_synced() -> None:
    files = FaultyFiles()
    file = files.open(DATA / "x", create=True)
    file.write(b"synced", 0)
    file.sync()
    files.open(DATA / "nameless", create=True).sync()
    files.sync_directory(DATA)
    files.open(DATA / "later", create=True).sync()
    file.write(b"lost", 6)
    files.remove(DATA / "nameless")
    files.crash()
    assert (files.list(DATA), files.read(DATA / "x")) == (["nameless", "x"], b"synced")
    with pytest.raises(OSError, match="gone"):
        file.write(b"from the grave", 6)


def after_crashes(synced: bytes, *writes: tuple[bytes, int]) -> set[tuple[bytes, int]]:
    """A file's bytes and the number of names in its directory, after each of many crashes."""
    found = set()
    for seed in range(400):
        files = FaultyFiles()
        file = files.open(DATA / "x", create=True)
        file.write(synced, 0)
        file.sync()
        files.sync_directory(DATA)
        for data, offset in writes:
            file.write(data, offset)
        files.open(DATA / "y", create=True)
        files.crash(Random(seed))
        found.add((files.read(DATA / "x"), len(files.list(DATA))))
    return found


def test_a_crash_may_keep_or_tear_what_was_not_synced() -> None:
    found = after_crashes(b"ab", (b"cd", 2))
    assert {(b"ab", 1), (b"abc", 2), (b"abcd", 1), (b"abcd", 2), (b"abc\0", 1), (b"ab\0\0", 2)} <= found
    assert all(data.startswith(b"ab") for data, _ in found)


def test_a_crash_may_keep_any_of_the_sectors_that_were_written() -> None:
    old, new = b"-" * 2048, b"+" * 1024
    found = {data for data, _ in after_crashes(old, (new, 300), (new, 1324))}
    kept = {tuple(data[at : at + 1] == b"+" for at in (300, 512, 1024, 1324, 1536, 2048)) for data in found}
    assert {(False, True, False, False, True, False), (True, False, True, False, False, False)} <= kept
    assert all(data[:300] == old[:300] for data in found)


def test_a_crash_comes_at_the_operation_named() -> None:
    files = FaultyFiles()
    files.crash_in = 3
    file = files.open(DATA / "x", create=True)
    file.write(b"ab", 0)
    with pytest.raises(CrashError):
        file.write(b"cd", 2)
    assert files.operations == ["create", "write", "write"]


def test_a_full_disk_takes_what_it_has_room_for() -> None:
    files = FaultyFiles(capacity=5)
    file = files.open(DATA / "x", create=True)
    file.write(b"abc", 0)
    with pytest.raises(OSError, match="No space left"):
        file.write(b"def", 3)
    assert file.pread(9, 0) == b"abcde"


def test_a_failing_sync_writes_nothing() -> None:
    files = FaultyFiles()
    file = files.open(DATA / "x", create=True)
    files.sync_directory(DATA)
    file.write(b"abc", 0)
    files.failing_syncs = 1
    with pytest.raises(SyncError):
        file.sync()
    files.crash()
    assert files.read(DATA / "x") == b""
