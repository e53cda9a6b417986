"""kvstore as a library: open a store, write, read, reopen. Run: python examples/store_library.py [DIRECTORY]."""

import sys
import tempfile
import time
from pathlib import Path

from kvcommon.versions import VersionClock
from kvstore.batch import Record, RecordType, encode_batch
from kvstore.store import Store

EPOCH = 1  # one writer, so one epoch; replication gives each leadership its own
CLUSTER = "3f0c8a52-7f0e-4c38-9d55-0c0f6c1f0a11"  # whose data this is; another id is refused


def write(store: Store, clock: VersionClock, changes: dict[bytes, bytes | None]) -> None:
    """Put values, delete keys whose value is None; durable and visible when it returns."""
    now = time.time_ns() // 1_000_000
    records = [
        Record(RecordType.DELETE if value is None else RecordType.PUT, key, value or b"", clock.next(now))
        for key, value in changes.items()
    ]
    store.append(encode_batch(EPOCH, store.end.index + 1, store.applied, records), trusted=True)
    durable = store.flush()  # one write, one fdatasync; a server calls this on a worker thread
    store.commit(durable.index)  # a replicated server commits what every in-sync replica has


def show(store: Store, key: bytes) -> None:
    """Print a key's value, version and place in the log."""
    record = store.get(key)
    if record is None:
        print(f"{key.decode()}: no value")
    else:
        print(f"{key.decode()}: {record.value.decode()} (version {record.version}, index {record.index})")


def main(directory: Path) -> None:
    """Write, read, reopen, read again."""
    with Store.open(directory, cluster_id=CLUSTER, partition=0) as store:
        clock = VersionClock(partition=0, last=store.highest_version)
        write(store, clock, {b"apple": b"red", b"banana": b"yellow"})
        write(store, clock, {b"apple": b"green", b"banana": None})
        show(store, b"apple")
        show(store, b"banana")

    with Store.open(directory, cluster_id=CLUSTER, partition=0) as store:
        # The commit index travels in the next batch, so the last one waits until somebody says it is committed.
        print(f"reopened: the log ends at index {store.end.index}, {store.applied} is applied")
        store.commit(store.end.index)
        show(store, b"apple")
        show(store, b"banana")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
