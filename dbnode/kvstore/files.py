"""The file system as the store needs it: one small seam, replaced in tests by one that fails as disks do."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from kvstore.errors import CorruptionError, LockedError

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class SyncError(OSError):
    """A sync failed: what was written since the one before may be on the disk or not, now and after a restart."""


def is_full(error: BaseException | None) -> bool:
    """Whether something failed for want of space alone: then what is on the disk is known, and space may come back."""
    return isinstance(error, OSError) and not isinstance(error, SyncError) and error.errno in _NO_ROOM


@contextlib.contextmanager
def unreadable_is_damaged(path: Path) -> Iterator[None]:
    """What the disk can't read any more (EIO) is gone, like what it reads wrongly: a CorruptionError of this file."""
    try:
        yield
    except OSError as e:
        if e.errno != errno.EIO or isinstance(e, SyncError):
            raise
        raise CorruptionError(str(path), 0, f"it can't be read: {e.strerror}") from e


class File(Protocol):
    """An open file. `pread` may run in another thread than the rest."""

    def write(self, data: bytes, offset: int) -> None:
        """Write all of it there, at most at the end. Raises OSError; then any part of it may have been written."""
        ...

    def pread(self, length: int, offset: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer at the end of the file."""
        ...

    def sync(self) -> None:
        """Return once everything written is on the disk (fdatasync). Raises SyncError, once: never call it again then."""
        ...

    def fileno(self) -> int:
        """Its descriptor, for who has the kernel sync it. Raises OSError if it has none."""
        ...

    def truncate(self, size: int) -> None: ...
    def size(self) -> int: ...
    def close(self) -> None: ...


class Lock(Protocol):
    """A held lock."""

    def release(self) -> None: ...


class Files(Protocol):
    """A file system. Everything raises OSError; what names a missing file raises FileNotFoundError."""

    def make_directory(self, path: Path) -> None:
        """Make it, parents included, durably; fine if it is there."""
        ...

    def list(self, directory: Path) -> list[str]:
        """Names in it, sorted."""
        ...

    def open(self, path: Path, *, create: bool = False) -> File:
        """An existing file, or a new one (FileExistsError if it is there)."""
        ...

    def read(self, path: Path) -> bytes: ...
    def rename(self, source: Path, target: Path) -> None:
        """Atomically, over what is there; durable after `sync_directory`."""
        ...

    def link(self, path: Path, name: Path) -> None:
        """Give a file another name, beside the one it has; durable after `sync_directory`. FileExistsError if it is there."""
        ...

    def remove(self, path: Path) -> None: ...
    def sync_directory(self, path: Path) -> None:
        """Return once the names in it are on the disk. Raises SyncError."""
        ...

    def lock_directory(self, path: Path) -> Lock:
        """Hold the directory for this process until released or dead. Raises LockedError. Leaves no trace in it."""
        ...

    def free_bytes(self, path: Path) -> int: ...
    def allocate(self, path: Path, size: int) -> None:
        """Have a file take so many bytes of room, whatever it holds; made if it is missing. Nothing of it is durable."""
        ...


class OsFile:
    """A real file."""

    _fd = -1  # until it is open

    def __init__(self, path: Path, flags: int) -> None:
        self._fd = os.open(path, flags | os.O_RDWR | os.O_CLOEXEC, 0o640)

    def write(self, data: bytes, offset: int) -> None:
        written = os.pwrite(self._fd, data, offset)
        while written < len(data):  # a short write is no failure; the rest says why
            written += os.pwrite(self._fd, memoryview(data)[written:], offset + written)

    def pread(self, length: int, offset: int) -> bytes:
        data = os.pread(self._fd, length, offset)
        if len(data) == length or not data:
            return data
        parts = [data]
        while data and (length := length - len(data)):
            offset += len(data)
            data = os.pread(self._fd, length, offset)
            parts.append(data)
        return b"".join(parts)

    def sync(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError as e:
            raise SyncError(*e.args) from e

    def fileno(self) -> int:
        return self._fd

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()  # a compacted segment's file is let go of by whoever reads it last


class OsLock:
    """An flock on a directory; the kernel drops it with the process."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            holder = _lock_holder(self._fd)
            os.close(self._fd)
            if e.errno not in {errno.EAGAIN, errno.EACCES}:
                raise
            msg = f"{path} is in use by {holder}. Stop that process, or give this one its own directory"
            raise LockedError(msg) from e

    def release(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _lock_holder(fd: int) -> str:
    """Who holds the flock on an open file, by the kernel's list of locks (proc(5)), as far as it can be seen."""
    inode = os.fstat(fd).st_ino
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if words[1:2] == ["FLOCK"] and words[5].rpartition(":")[2] == str(inode) and int(words[4]) > 0:
                return f"process {words[4]}"
    return "another process"


class OsFiles:
    """This machine's file system."""

    def make_directory(self, path: Path) -> None:
        made = [p for p in (path, *path.parents) if not p.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for p in made:
            self.sync_directory(p.parent)

    def list(self, directory: Path) -> list[str]:
        return sorted(entry.name for entry in directory.iterdir())

    def open(self, path: Path, *, create: bool = False) -> OsFile:
        return OsFile(path, os.O_CREAT | os.O_EXCL if create else 0)

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def rename(self, source: Path, target: Path) -> None:
        source.rename(target)

    def link(self, path: Path, name: Path) -> None:
        name.hardlink_to(path)

    def remove(self, path: Path) -> None:
        path.unlink()

    def sync_directory(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as e:
            raise SyncError(*e.args) from e
        finally:
            os.close(fd)

    def lock_directory(self, path: Path) -> OsLock:
        return OsLock(path)

    def free_bytes(self, path: Path) -> int:
        stat = os.statvfs(path)
        return stat.f_bavail * stat.f_frsize

    def allocate(self, path: Path, size: int) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(fd)


def read_file(files: Files, path: Path) -> bytes | None:
    """What a small file holds; None if it is missing. Raises CorruptionError if it can't be read, OSError."""
    try:
        with unreadable_is_damaged(path):
            return files.read(path)
    except FileNotFoundError:
        return None


def replace_file(files: Files, path: Path, data: bytes) -> None:
    """Put `data` in place of what `path` holds: after a crash one or the other is there whole; now durable."""
    temporary = path.with_name(path.name + ".tmp")
    with contextlib.suppress(FileNotFoundError):
        files.remove(temporary)
    file = files.open(temporary, create=True)
    try:
        file.write(data, 0)
        file.sync()
    except OSError:
        with contextlib.suppress(OSError):
            files.remove(temporary)
        raise
    finally:
        file.close()
    files.rename(temporary, path)
    files.sync_directory(path.parent)
