"""Real processes: killed while they write, and two on one directory."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kvstore.errors import LockedError
from kvstore.store import Store, StoreOptions

OPTIONS = StoreOptions(segment_bytes=30_000)

WRITER = """
import sys
from kvstore.batch import Record, encode_batch
from kvstore.store import Store, StoreOptions
store = Store.open(sys.argv[1], cluster_id="c", partition=0, options=StoreOptions(segment_bytes=30_000))
while True:
    first = store.end.index + 1
    records = [Record(1, b"k%d" % (first + i), b"v%d" % (first + i) * 20, first + i) for i in range(7)]
    store.append(encode_batch(1, first, store.applied, records), trusted=True)
    durable = store.flush().index
    store.commit(durable)
    sys.stderr.write(f"{durable}\\n")
"""


def start(directory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def last_told(writer: subprocess.Popen[str], lines: int) -> int:
    """The last position the writer told, after so many of them, when it is then killed."""
    assert writer.stderr
    told = [int(writer.stderr.readline()) for _ in range(lines)]
    os.kill(writer.pid, signal.SIGKILL)
    told += [int(line) for line in writer.stderr.read().splitlines(keepends=True) if line.endswith("\n")]
    writer.wait(10)
    writer.stderr.close()
    return told[-1]


def test_a_writer_killed_again_and_again_loses_nothing_it_told(tmp_path: Path) -> None:
    for round_ in range(5):
        told = last_told(start(tmp_path), 20 + 17 * round_)
        with Store.open(tmp_path, cluster_id="c", partition=0, options=OPTIONS) as store:
            assert store.end.index >= told
            store.commit(store.end.index)
            assert store.keys == store.end.index
            for i in range(1, store.end.index + 1, 13):
                record = store.get(b"k%d" % i)
                assert record
                assert (record.value, record.index) == (b"v%d" % i * 20, i)


def test_a_directory_in_use_names_the_process(tmp_path: Path) -> None:
    writer = start(tmp_path)
    try:
        assert writer.stderr
        writer.stderr.readline()
        with pytest.raises(LockedError, match=f"{tmp_path} is in use by (process {writer.pid}|another process)"):
            Store.open(tmp_path, cluster_id="c", partition=0)
    finally:
        last_told(writer, 1)
    Store.open(tmp_path, cluster_id="c", partition=0, options=OPTIONS).close()
