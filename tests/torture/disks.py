"""A disk for each node: an ext4 file system in a file where loop devices can be had, else a tmpfs, else a folder.

On ext4 a sync waits for this machine's disk, and what nobody synced is lost with the power. Filling costs no space on either.
"""

import errno
import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from tests.torture.hang import THAW, change
from tests.torture.network import NothingHappenedError

FOLDER, IMAGES = "disks", "images"  # below a run's folder
SIZE = 1 << 30
PAGE = 4096
EXT4_IOC_SHUTDOWN, WITHOUT_THE_JOURNAL = 0x8004587D, 2  # _IOR('X', 125, __u32), EXT4_GOING_FLAGS_NOLOGFLUSH
MKFS = ("mkfs.ext4", "-q", "-m", "0", "-N", "8192", "-J", "size=16")  # nothing reserved, few inodes, a small journal


class Disk:
    """A folder for a node's data directory. This one is just a folder: nothing can be done to it."""

    real: ClassVar[bool] = False  # whether syncs, hangs and losses of power are
    mounted: ClassVar[bool] = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def free(self) -> int:
        """Bytes that can still be written."""
        told = os.statvfs(self.folder)
        return told.f_bavail * told.f_frsize

    def fill(self, left: int) -> None:
        """Leave so many bytes free. Raises NothingHappenedError when more than that can still be written."""
        for _ in range(5):  # its node goes on writing meanwhile
            if self._take(left + PAGE):
                break
        probe = self.folder / "filled.tmp"
        try:
            with probe.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, left + 4 * PAGE)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                return
            raise
        finally:
            probe.unlink(missing_ok=True)
        raise NothingHappenedError(f"{self.folder} was to be full, but takes {left} bytes and more")

    def empty(self) -> None:
        """Give the space back."""
        raise NotImplementedError

    def _take(self, left: int) -> bool:
        """Try to leave so many bytes free; whether that was done."""
        raise NotImplementedError


class MemoryDisk(Disk):
    """A tmpfs: its size is what makes it full. A sync costs nothing in it, and it has no power to lose."""

    mounted = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        _do("mount", "-t", "tmpfs", "-o", f"size={SIZE}", "torture", str(folder))

    def empty(self) -> None:
        assert self._resize(SIZE), f"{self.folder} can't be made as large as it was"

    def _take(self, left: int) -> bool:
        return self._resize(SIZE - self.free + left)

    def _resize(self, size: int) -> bool:
        command = ["mount", "-o", f"remount,size={size // PAGE * PAGE}", str(self.folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


class Ext4Disk(Disk):
    """An ext4 file system in a sparse file: a file of unwritten blocks makes it full."""

    real = mounted = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._image = folder.parent.parent / IMAGES / f"{folder.name}.ext4"
        self._image.parent.mkdir(exist_ok=True)
        with self._image.open("wb") as file:
            file.truncate(SIZE)
        _do(*MKFS, str(self._image))
        self._mount()

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast.tmp"

    def empty(self) -> None:
        self._ballast.unlink(missing_ok=True)
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # or the next loss of power would bring it back
        finally:
            os.close(descriptor)

    def _take(self, left: int) -> bool:
        with suppress(OSError), self._ballast.open("ab") as file:  # no space: the node was quicker
            size, more = file.tell(), self.free - left
            if more > 0:
                os.posix_fallocate(file.fileno(), size, more)
        return self.free <= left

    def hang(self, seconds: float) -> None:
        """Have whoever writes or syncs here wait for so long, not longer even if this process dies; blocks as long.

        Raises NothingHappenedError when a write got through.
        """
        probe = [sys.executable, "-c", f"open({str(self.folder / 'probe.tmp')!r}, 'w').write('x')"]
        command = [sys.executable, "-m", "tests.torture.hang", str(self.folder), str(seconds)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as helper:
            assert helper.stdout is not None
            if not helper.stdout.readline():
                raise NothingHappenedError(f"{self.folder} was to hang, but can't be frozen")
            with subprocess.Popen(probe) as writer, suppress(subprocess.TimeoutExpired):
                writer.wait(0.8 * seconds)
                raise NothingHappenedError(f"{self.folder} was to hang, but a file could be written")

    def lose_power(self) -> None:
        """Forget what was not synced, and mount it again as after a boot. Nobody may have a file open there.

        Raises NothingHappenedError when it went on taking writes.
        """
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", WITHOUT_THE_JOURNAL))
        finally:
            os.close(descriptor)
        with suppress(OSError):
            (self.folder / "probe.tmp").write_bytes(b"x")
            raise NothingHappenedError(f"{self.folder} was to have no power, but takes writes")
        _do("umount", str(self.folder))
        self._mount()

    def _mount(self) -> None:
        _do("mount", "-o", "loop", str(self._image), str(self.folder))


def _do(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{command[0]} ended with {done.returncode}: {' '.join(done.stderr.split())}")


def best_disk(*, namespaces: bool) -> tuple[type[Disk], str]:
    """The most real kind of disk that can be had here, and why it is no better; needs a mount namespace of our own."""
    if not namespaces:
        return Disk, "nothing can be mounted outside namespaces"
    try:
        with run_folder() as folder:
            disk = Ext4Disk(folder / FOLDER / "probe")
            disk.hang(0.5)
            disk.lose_power()
    except OSError as error:
        return MemoryDisk, f"no file can be mounted as ext4: {error}"
    return Ext4Disk, ""


@contextmanager
def run_folder() -> Iterator[Path]:
    """A folder for a run, removed at the end, after what is mounted in it was let go of."""
    with TemporaryDirectory(prefix="torture-") as name:
        folder = Path(name)
        try:
            yield folder
        finally:
            for disk in (folder / FOLDER).glob("*"):
                with suppress(OSError):
                    change(disk, THAW)
                subprocess.run(["umount", "--lazy", str(disk)], capture_output=True, check=False)
