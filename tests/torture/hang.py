"""Has a file system hang: `python -m tests.torture.hang <folder> <seconds>`, until stdin is closed or the time is over.

A process of its own: should its parent be killed, the file system goes on, and whoever waits for it can be killed again.
"""

import fcntl
import os
import select
import sys
from pathlib import Path

FREEZE, THAW = 0xC0045877, 0xC0045878  # FIFREEZE, FITHAW of <linux/fs.h>


def change(folder: Path, request: int) -> None:
    """Freeze or thaw the file system of a folder. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, request, 0)
    finally:
        os.close(descriptor)


def main() -> None:
    """Freeze, say so, wait, thaw."""
    folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
    change(folder, FREEZE)
    try:
        print("frozen", flush=True)
        select.select([sys.stdin], [], [], seconds)
    finally:
        change(folder, THAW)


if __name__ == "__main__":
    main()
