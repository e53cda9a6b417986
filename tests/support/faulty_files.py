"""A file system in memory that does what disks do at their worst: forgets what wasn't synced, tears, fills, rots.

What a directory holds and what files hold are each kept twice: as the running system sees it and as the disk has it.
`crash` throws the first away. Between the two it may keep, for each file, any prefix of what was appended since the
last sync (its last bytes spoiled or not), and for the directory any of the names changed since its last sync.
"""

import errno
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from kvstore.errors import LockedError
from kvstore.files import SyncError


@dataclass(eq=False)
class Inode:
    """A file's bytes, as seen and as on the disk."""

    data: bytearray = field(default_factory=bytearray)
    synced: bytes = b""


@dataclass(eq=False)
class FaultyFile:
    """An open file; dead after a crash."""

    files: "FaultyFiles"
    inode: Inode
    boot: int

    def _alive(self) -> None:
        if self.boot != self.files.boot:
            raise OSError(errno.EBADF, "the machine this file was open on is gone")

    def append(self, data: bytes) -> None:
        self._alive()
        room = self.files.write_step(len(data))
        self.inode.data += data[:room]
        if room < len(data):
            raise OSError(errno.ENOSPC, "No space left on device")

    def pread(self, length: int, offset: int) -> bytes:
        self._alive()
        self.files.preads += 1
        return bytes(self.inode.data[offset : offset + length])

    def sync(self) -> None:
        self._alive()
        self.files.sync_step()
        self.inode.synced = bytes(self.inode.data)

    def truncate(self, size: int) -> None:
        self._alive()
        self.files.step("truncate")
        del self.inode.data[size:]

    def size(self) -> int:
        self._alive()
        return len(self.inode.data)

    def close(self) -> None:
        pass


@dataclass(eq=False)
class FaultyLock:
    """A held lock of a boot."""

    files: "FaultyFiles"
    path: Path
    boot: int

    def release(self) -> None:
        if self.boot == self.files.boot:
            self.files.locked.discard(self.path)


class CrashError(BaseException):
    """The machine stopped in the middle of an operation; nothing after it was done."""


class FaultyFiles:
    """See the module; one directory tree, names by path. Directories themselves are durable."""

    def __init__(self, capacity: int | None = None) -> None:
        self.boot = 0
        self.capacity = capacity
        self.told_free: int | None = None  # what `free_bytes` says instead of the truth
        self.locked: set[Path] = set()
        self.seen: dict[Path, Inode] = {}
        self.durable: dict[Path, Inode] = {}
        self.directories: set[Path] = set()
        self.failing_syncs = 0  # the next so many syncs fail, having written nothing
        self.crash_in: int | None = None  # the operation, counted from 1, that is not done because the machine stops
        self.operations: list[str] = []
        self.preads = 0

    # Faults

    def stop(self) -> None:
        """Kill the process that uses it: the page cache stays, open files and locks go."""
        self.boot += 1
        self.crash_in = None
        self.locked.clear()

    def copy(self) -> "FaultyFiles":
        """Another disk that holds what is durable on this one."""
        found = FaultyFiles(self.capacity)
        for path, inode in self.durable.items():
            found.durable[path] = found.seen[path] = Inode(bytearray(inode.synced), inode.synced)
        found.directories = set(self.directories)
        return found

    def crash(self, random: Random | None = None) -> None:
        """Stop the machine and start it again: what wasn't synced is lost, or partly kept if `random` says so."""
        self.boot += 1
        self.crash_in = None
        self.failing_syncs = 0
        self.locked.clear()
        names = dict(self.durable)
        if random:
            for path in sorted(self.seen.keys() | self.durable.keys()):
                if self.seen.get(path) is not self.durable.get(path) and random.random() < 0.5:
                    if path in self.seen:
                        names[path] = self.seen[path]
                    else:
                        names.pop(path, None)
        for inode in {id(i): i for i in names.values()}.values():
            inode.data = bytearray(_after_crash(inode, random))
            inode.synced = bytes(inode.data)
        self.seen, self.durable = dict(names), dict(names)

    def flip(self, path: Path, offset: int, bit: int = 0) -> None:
        """Turn one bit, on the disk and as seen."""
        inode = self.seen[path]
        inode.data[offset] ^= 1 << bit
        inode.synced = bytes(inode.data)

    def snapshot(self) -> dict[Path, bytes]:
        """Every file's bytes as seen."""
        return {path: bytes(inode.data) for path, inode in self.seen.items()}

    def sizes(self) -> list[int]:
        """Of all files, as seen."""
        return [len(inode.data) for inode in self.seen.values()]

    def step(self, name: str) -> None:
        """Count an operation that changes something; stop the machine if it was to stop here."""
        self.operations.append(name)
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crash_in <= 0:
                raise CrashError

    def write_step(self, length: int) -> int:
        """How much of a write of `length` there is room for."""
        self.step("append")
        if self.capacity is None:
            return length
        return max(0, min(length, self._room()))

    def sync_step(self) -> None:
        self.step("sync")
        if self.failing_syncs:
            self.failing_syncs -= 1
            raise SyncError(errno.EIO, "Input/output error")

    # kvstore.files.Files

    def make_directory(self, path: Path) -> None:
        self.directories.add(path)

    def list(self, directory: Path) -> list[str]:
        return sorted(p.name for p in self.seen if p.parent == directory)

    def open(self, path: Path, *, create: bool = False) -> FaultyFile:
        if create:
            if path in self.seen:
                raise FileExistsError(path)
            self.step("create")
            self.seen[path] = Inode()
        elif path not in self.seen:
            raise FileNotFoundError(path)
        return FaultyFile(self, self.seen[path], self.boot)

    def read(self, path: Path) -> bytes:
        if path not in self.seen:
            raise FileNotFoundError(path)
        return bytes(self.seen[path].data)

    def rename(self, source: Path, target: Path) -> None:
        self.step("rename")
        self.seen[target] = self.seen.pop(source)

    def remove(self, path: Path) -> None:
        if path not in self.seen:
            raise FileNotFoundError(path)
        self.step("remove")
        del self.seen[path]

    def sync_directory(self, path: Path) -> None:
        self.sync_step()
        self.operations[-1] = "sync directory"
        kept = {p: i for p, i in self.durable.items() if p.parent != path}
        self.durable = kept | {p: i for p, i in self.seen.items() if p.parent == path}

    def lock_directory(self, path: Path) -> FaultyLock:
        if path in self.locked:
            raise LockedError(f"{path} is in use by another process")
        self.locked.add(path)
        return FaultyLock(self, path, self.boot)

    def free_bytes(self, path: Path) -> int:
        return self._room() if self.told_free is None else self.told_free

    def _room(self) -> int:
        used = sum(len(i.data) for i in self.seen.values())
        return (1 << 40) if self.capacity is None else self.capacity - used


def _after_crash(inode: Inode, random: Random | None) -> bytes:
    """What of a file is found: the synced bytes, and of later appends a prefix, its end spoiled or not."""
    if not random:
        return inode.synced
    seen = bytes(inode.data)
    if not seen.startswith(inode.synced):  # cut since the last sync: done or not
        return seen if random.random() < 0.5 else inode.synced
    extra = bytearray(seen[len(inode.synced) :])
    del extra[random.randint(0, len(extra)) :]
    if extra and random.random() < 0.5:
        spoiled = random.randint(1, min(len(extra), 40))
        extra[-spoiled:] = bytes(spoiled) if random.random() < 0.5 else random.randbytes(spoiled)
    return inode.synced + bytes(extra)
