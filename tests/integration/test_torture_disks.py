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

FULL = """
from kvstore.batch import encode_batch
from kvstore.store import Store, StoreOptions
from tests.torture.disks import FOLDER, best_disk, run_folder

def append(store, index, size):
    store.append(encode_batch(1, index, 0, [(1, b"key", bytes(size), index, index)]))
    store.flush()
    store.commit(index)

kind, why = best_disk(namespaces=True)
with run_folder() as folder:
    disk = kind(folder / FOLDER / "n0")
    options = StoreOptions(ballast_bytes=4 << 20)
    with Store.open(disk.folder / "data", cluster_id="c", partition=0, options=options) as store:
        append(store, 1, 1000)
        disk.fill(0)
        print(store.short_of_room, store.free_bytes < 100_000)
        append(store, 2, 3 << 19)
        store.save_state({"a": "b"})
        print(store.short_of_room, store.get(b"key").version, store.maintain(), store.short_of_room)
        disk.empty()
        print(store.maintain(), store.short_of_room)
"""


def test_each_fault_of_a_disk_does_what_it_says(tmp_path: Path) -> None:
    """Full, emptied; with ext4 also: what was not synced is gone with the power; a hang ends."""
    obstacle = sandbox.obstacle()
    if obstacle:  # torture runs without disks then, and says so
        assert "run as root" in obstacle or "not found" in obstacle
        return
    kind, *told = _run(tmp_path, TRIAL)
    assert told == ["full True", "emptied True"] * 3 + REAL * kind.startswith("Ext4Disk")
    assert kind == "Ext4Disk " or kind.startswith("MemoryDisk no file can be mounted as ext4"), kind


def test_a_store_on_a_full_disk_writes_into_the_room_it_kept_back(tmp_path: Path) -> None:
    """The file system gives it what the ballast had, at once; and the ballast is there again when there is room."""
    if sandbox.obstacle():
        return
    assert [line for line in _run(tmp_path, FULL) if "[" not in line] == [
        "False True",
        "True 2 False True",
        "False False",
    ]


def _run(folder: Path, trial: str) -> list[str]:
    """The lines that a script prints in a sandbox."""
    script = folder / "trial.py"
    script.write_text(trial)
    command = [*sandbox.unshare(), sys.executable, str(script)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
