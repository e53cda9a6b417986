"""A disk for each node that can be filled: a tmpfs, whose size is what makes it full, so that filling it costs no memory."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.torture.network import NothingHappenedError

FOLDER = "disks"  # below a run's folder
SIZE = 1 << 30
PAGE = 4096


class Disk:
    """A folder that is a file system of its own (with `mounted`), or just a folder."""

    def __init__(self, folder: Path, *, mounted: bool) -> None:
        self.folder = folder
        self.mounted = mounted
        folder.mkdir(parents=True, exist_ok=True)
        if mounted:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "torture", folder], check=True)

    @property
    def used(self) -> int:
        """Bytes in use."""
        told = os.statvfs(self.folder)
        return (told.f_blocks - told.f_bfree) * told.f_frsize

    def fill(self, left: int) -> None:
        """Leave so many bytes free. Raises NothingHappenedError when more than that can still be written."""
        for _ in range(5):  # its node goes on writing meanwhile
            if self._resize(self.used + left + PAGE):
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
        assert self._resize(SIZE), f"{self.folder} can't be made as large as it was"

    def _resize(self, size: int) -> bool:
        command = ["mount", "-o", f"remount,size={size // PAGE * PAGE}", str(self.folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextmanager
def run_folder() -> Iterator[Path]:
    """A folder for a run, removed at the end, after what is mounted in it was let go of."""
    with TemporaryDirectory(prefix="torture-") as name:
        folder = Path(name)
        try:
            yield folder
        finally:
            for disk in (folder / FOLDER).glob("*"):
                subprocess.run(["umount", "--lazy", str(disk)], capture_output=True, check=False)
