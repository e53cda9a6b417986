"""The disks that torture hurts: each fault does what it says, on the most real kind of disk that this machine has."""

import os
import subprocess
import sys
from pathlib import Path

from tests.torture import sandbox

TRIAL = """
import os
from tests.torture.disks import FOLDER, Disk, Ext4Disk, best_disk, run_folder

def write(path, text, sync):
    with path.open("w") as file:
        file.write(text)
        file.flush()
        if sync:
            os.fsync(file.fileno())

kind, why = best_disk(namespaces=True)
print(kind.__name__, why)
with run_folder() as folder:
    disk = kind(folder / FOLDER / "n0")
    for left in (100 << 20, 64 << 10, 0):
        disk.fill(left)
        print("full", disk.free <= left + 8192)
        disk.empty()
        print("emptied", disk.free > 900 << 20)
    if disk.real:
        write(disk.folder / "synced", "x" * 5000, sync=True)
        write(disk.folder / "not synced", "x" * 5000, sync=False)
        disk.lose_power()
        print("still emptied", disk.free > 900 << 20)
        print("after a loss of power", sorted(path.name for path in disk.folder.glob("*synced")))
        disk.hang(0.5)
        write(disk.folder / "again", "x", sync=True)
        print("goes on")
"""
REAL = ["still emptied True", "after a loss of power ['synced']", "goes on"]


def test_each_fault_of_a_disk_does_what_it_says(tmp_path: Path) -> None:
    """Full, emptied; with ext4 also: what was not synced is gone with the power; a hang ends."""
    obstacle = sandbox.obstacle()
    if obstacle:  # torture runs without disks then, and says so
        assert "run as root" in obstacle or "not found" in obstacle
        return
    (tmp_path / "trial.py").write_text(TRIAL)
    command = [*sandbox.unshare(), sys.executable, str(tmp_path / "trial.py")]

    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": "."})

    assert done.returncode == 0, done.stderr
    kind, *told = done.stdout.splitlines()
    assert told == ["full True", "emptied True"] * 3 + REAL * kind.startswith("Ext4Disk"), done.stdout
    assert kind == "Ext4Disk " or kind.startswith("MemoryDisk no file can be mounted as ext4"), kind
