"""A file system in memory that does what disks do at their worst: forgets what wasn't synced, tears, fills, rots, fails.

What a directory holds and what files hold are each kept twice: as the running system sees it and as the disk has it.
`crash` throws the first away. Between the two it may keep, for each file, the first of the writes since the last sync
(the last one torn, its last bytes spoiled or not), or any of their sectors; and for the directory any of the names
changed since its last sync.
"""

import errno
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random

from kvstore.errors import LockedError
from kvstore.files import SyncError

SECTORS = (512, 4096)  # bytes that reach the disk together or not at all


@dataclass(frozen=True, slots=True)
class Rot:
    """A damaged place of a file. `bit`: the one that reads wrongly; None: nothing can be read there (EIO)."""

    offset: int
    bit: int | None = None


@dataclass(eq=False)
class Inode:
    """A file's bytes, as seen and as on the disk; what was written since the last sync, and whether it was cut.

    `rot` is damage that nobody has met yet.
    """

    data: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    writes: list[tuple[int, bytes]] = field(default_factory=list)
    cut: bool = False
    rot: Rot | None = None

    def flip(self, offset: int, bit: int) -> None:
        """Turn one bit, on the disk, too, if it is there."""
        self.data[offset] ^= 1 << bit
        if offset < len(self.synced):
            synced = bytearray(self.synced)
            synced[offset] ^= 1 << bit
            self.synced = bytes(synced)

    def settle(self) -> None:
        """All that is seen is on the disk."""
        self.synced, self.writes, self.cut = bytes(self.data), [], False


@dataclass(eq=False)
class FaultyFile:
    """An open file; dead after a crash."""

    files: "FaultyFiles"
    inode: Inode
    boot: int

    def _alive(self) -> None:
        if self.boot != self.files.boot:
            raise OSError(errno.EBADF, "the machine this file was open on is gone")

    def write(self, data: bytes, offset: int) -> None:
        self._alive()
        seen = self.inode.data
        assert offset <= len(seen), "a hole"
        room = self.files.write_step(offset + len(data) - len(seen))
        fails = self.files.write_fails()
        part = data[: len(data) // 2] if fails else data[: len(seen) + room - offset]
        seen[offset : offset + len(part)] = part
        self.inode.writes.append((offset, bytes(part)))
        if fails:
            raise io_error()
        if len(part) < len(data):
            raise OSError(errno.ENOSPC, "No space left on device")

    def pread(self, length: int, offset: int) -> bytes:
        self._alive()
        self.files.pread_step(self.inode, offset)
        self.files.read_step(self.inode, offset, offset + length)
        return bytes(self.inode.data[offset : offset + length])

    def sync(self) -> None:
        self._alive()
        self.files.sync_step()
        self.inode.settle()

    def fileno(self) -> int:
        raise io.UnsupportedOperation("this file is in memory")

    def truncate(self, size: int) -> None:
        self._alive()
        self.files.step("truncate")
        del self.inode.data[size:]
        self.inode.cut = True
        if self.inode.rot is not None and self.inode.rot.offset >= size:
            self.inode.rot = None

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


def io_error() -> OSError:
    """What a broken disk says."""
    return OSError(errno.EIO, "Input/output error")


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
        self.changed: set[Path] = set()  # names since their directory's last sync
        self.directories: set[Path] = set()
        self.failing_syncs = 0  # the next so many syncs fail, having written nothing
        self.failing_writes = 0  # the next so many writes fail, having written a half
        self.failing_reads = 0  # the places of the next so many reads of open files can't be read any more
        self.may_fail: Callable[[str], bool] = lambda _: True
        """Asked what is about to happen; False: that fault is over."""
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
        self.failing_syncs = self.failing_writes = self.failing_reads = 0
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
            inode.settle()
        self.seen, self.durable = dict(names), dict(names)
        self.changed.clear()

    def flip(self, path: Path, offset: int, bit: int = 0) -> None:
        """Turn one bit, on the disk and as seen."""
        inode = self.seen[path]
        inode.flip(offset, bit)
        inode.settle()

    def damage(self, path: Path, offset: int, bit: int | None = None) -> None:
        """A place that turns out, when it is read, to have a bit turned or (None) not to be readable any more."""
        self.seen[path].rot = Rot(offset, bit)

    @property
    def troubled(self) -> bool:
        """Whether something is to fail, or to be found damaged."""
        failing = self.failing_syncs or self.failing_writes or self.failing_reads or self.capacity is not None
        return bool(failing) or any(inode.rot for inode in self.seen.values())

    def heal(self) -> None:
        """All that was to fail, or to be found damaged, is well again."""
        self.failing_syncs = self.failing_writes = self.failing_reads = 0
        for inode in self.seen.values():
            inode.rot = None

    def snapshot(self) -> dict[Path, bytes]:
        """Every file's bytes as seen."""
        return {path: bytes(inode.data) for path, inode in self.seen.items()}

    def sizes(self) -> list[int]:
        """Of all files, as seen."""
        return [len(inode.data) for inode in set(self.seen.values())]

    def step(self, name: str) -> None:
        """Count an operation that changes something; stop the machine if it was to stop here."""
        self.operations.append(name)
        if self.crash_in is not None:
            self.crash_in -= 1
            if self.crashed:
                raise CrashError

    @property
    def crashed(self) -> bool:
        """Whether the machine has stopped in the middle of an operation: nothing is done until `crash`."""
        return self.crash_in is not None and self.crash_in <= 0

    def write_step(self, grows: int) -> int:
        """By how much of `grows` bytes a file can grow."""
        self.step("write")
        grows, room = max(0, grows), self.room
        if grows > room and not self.may_fail("there is no room"):
            self.capacity = None
            return grows
        return max(0, min(grows, room))

    def write_fails(self) -> bool:
        """Whether the write under way is one that fails."""
        fails = self.failing_writes > 0
        self.failing_writes -= fails
        return fails and self.may_fail("a write fails")

    def sync_step(self) -> None:
        self.step("sync")
        if self.failing_syncs:
            self.failing_syncs -= 1
            if self.may_fail("a sync fails"):
                raise SyncError(*io_error().args)

    def pread_step(self, inode: Inode, offset: int) -> None:
        self.preads += 1
        if self.failing_reads and offset < len(inode.data):
            self.failing_reads -= 1
            inode.rot = Rot(offset)

    def read_step(self, inode: Inode, start: int, end: int) -> None:
        """Meet the damage there. A place that can't be read stays so; a bit is turned for good."""
        rot = inode.rot
        if rot is None or not start <= rot.offset < min(end, len(inode.data)):
            return
        met = self.may_fail("a place can't be read" if rot.bit is None else "a turned bit is read")
        if met and rot.bit is None:
            raise io_error()
        inode.rot = None
        if met and rot.bit is not None:
            inode.flip(rot.offset, rot.bit)

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
            self.changed.add(path)
        elif path not in self.seen:
            raise FileNotFoundError(path)
        return FaultyFile(self, self.seen[path], self.boot)

    def read(self, path: Path) -> bytes:
        if path not in self.seen:
            raise FileNotFoundError(path)
        inode = self.seen[path]
        self.read_step(inode, 0, len(inode.data))
        return bytes(inode.data)

    def rename(self, source: Path, target: Path) -> None:
        self.step("rename")
        self.seen[target] = self.seen.pop(source)
        self.changed |= {source, target}

    def link(self, path: Path, name: Path) -> None:
        if name in self.seen:
            raise FileExistsError(name)
        self.step("link")
        self.seen[name] = self.seen[path]
        self.changed.add(name)

    def remove(self, path: Path) -> None:
        if path not in self.seen:
            raise FileNotFoundError(path)
        self.step("remove")
        del self.seen[path]
        self.changed.add(path)

    def sync_directory(self, path: Path) -> None:
        self.sync_step()
        self.operations[-1] = "sync directory"
        for name in [p for p in self.changed if p.parent == path]:
            self.changed.remove(name)
            if name in self.seen:
                self.durable[name] = self.seen[name]
            else:
                self.durable.pop(name, None)

    def lock_directory(self, path: Path) -> FaultyLock:
        if path in self.locked:
            raise LockedError(f"{path} is in use by another process")
        self.locked.add(path)
        return FaultyLock(self, path, self.boot)

    def free_bytes(self, path: Path) -> int:
        return self.room if self.told_free is None else self.told_free

    def allocate(self, path: Path, size: int) -> None:
        self.step("allocate")
        inode = self.seen.get(path) or Inode()
        grows = size - len(inode.data)
        if grows > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        inode.data.extend(bytes(max(0, grows)))
        if path not in self.seen:
            self.seen[path] = inode
            self.changed.add(path)

    @property
    def room(self) -> int:
        """Bytes by which files can grow."""
        return (1 << 40) if self.capacity is None else self.capacity - sum(self.sizes())


def _after_crash(inode: Inode, random: Random | None) -> bytes:
    """What of a file is found: the synced bytes, and of what was done later some."""
    if not random:
        return inode.synced
    if inode.cut:  # cut since the last sync: done or not
        return bytes(inode.data) if random.random() < 0.5 else inode.synced
    found = bytearray(inode.synced)
    for offset, data in _torn(inode.writes, random) if random.random() < 0.5 else _sectors(inode.writes, random):
        found.extend(bytes(max(0, offset - len(found))))
        found[offset : offset + len(data)] = data
    return bytes(found)


def _torn(writes: list[tuple[int, bytes]], random: Random) -> list[tuple[int, bytes]]:
    """The first of the writes, the last one perhaps not to its end, its last bytes spoiled or not."""
    kept = writes[: random.randint(0, len(writes))]
    if kept:
        offset, data = kept.pop()
        part = bytearray(data[: random.randint(0, len(data))])
        if part and random.random() < 0.5:
            spoiled = random.randint(1, min(len(part), 40))
            part[-spoiled:] = bytes(spoiled) if random.random() < 0.5 else random.randbytes(spoiled)
        kept.append((offset, bytes(part)))
    return kept


def _sectors(writes: list[tuple[int, bytes]], random: Random) -> list[tuple[int, bytes]]:
    """Any of the sectors that were written to: a disk may write them in any order."""
    kept, sector = [], random.choice(SECTORS)
    for offset, data in writes:
        bounds = [0, *range(sector - offset % sector, len(data), sector), len(data)]
        kept += [(offset + at, data[at:end]) for at, end in pairwise(bounds) if random.random() < 0.5]
    return kept
