"""What the store's tests share."""

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from kvstore.batch import Record, RecordType, encode_batch
from kvstore.files import Files
from kvstore.index.hash import HashIndex
from kvstore.segment import HEADER_BYTES, read_segment_header, recycled_header, used_part
from kvstore.store import Store, StoreOptions

DATA = Path("/data")
CLUSTER = "6b1f2a3c-0000-4000-8000-000000000001"
PUT, DELETE, EPOCH, SESSION = RecordType.PUT, RecordType.DELETE, RecordType.EPOCH, RecordType.SESSION


class Incarnations:
    """Names for incarnations, one after the other."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> str:
        self.made += 1
        return f"incarnation-{self.made}"


def open_store(files: Files, directory: Path = DATA, **changes: Any) -> Store:
    """A store with small segments, whose reads are of the files."""
    names = {f.name for f in fields(StoreOptions)}
    options: dict[str, Any] = {
        "segment_bytes": 400,
        "record_cache_bytes": 0,
        "index": HashIndex,
        "new_incarnation": Incarnations(),
        "compaction_bytes_per_second": 0,
        "compaction_reserve_bytes": 0,
        "tombstone_ms": 0,
    }
    options |= {k: changes.pop(k) for k in list(changes) if k in names}
    arguments: dict[str, Any] = {"cluster_id": CLUSTER, "partition": 3} | changes
    return Store.open(directory, files=files, options=StoreOptions(**options), **arguments)


def put(key: bytes, value: bytes, version: int = 1) -> Record:
    return Record(PUT, key, value, version)


def recycled_head(first: int, *used: int) -> bytes:
    """The header of a recycled segment, with what both places say of how much is used; 0: that place is torn."""
    parts = (used_part(first, u) if u else b"torn".ljust(len(used_part(first, 0))) for u in used)
    return recycled_header(first)[:HEADER_BYTES] + b"".join(parts)


def is_recycled(data: bytes, path: Path) -> bool:
    """Whether these bytes of a file are a segment that was written into the file of an older one."""
    return path.suffix == ".log" and read_segment_header(data, path).used is not None


def delete(key: bytes, version: int = 1) -> Record:
    return Record(DELETE, key, b"", version)


def batch(first: int, *records: Record, epoch: int = 1, commit: int = 0) -> bytes:
    return encode_batch(epoch, first, commit, records)


def fill(store: Store, count: int, *, start: int | None = None, epoch: int = 1, commit: bool = True) -> None:
    """Batches of one put each, k1=v1 and so on, flushed one by one."""
    first = store.end.index + 1 if start is None else start
    for i in range(first, first + count):
        store.append(batch(i, put(b"k%d" % i, b"v%d" % i, i), epoch=epoch, commit=min(store.applied, i - 1)))
        store.flush()
        if commit:
            store.commit(i)


def write(store: Store, *records: Record, epoch: int = 1, commit: bool = True) -> None:
    """A batch of these records, durable, and committed unless said otherwise."""
    store.append(batch(store.end.index + 1, *records, epoch=epoch, commit=store.applied))
    store.flush()
    if commit:
        store.commit(store.end.index)


def maintain(store: Store) -> None:
    """All that is to be done on the log."""
    while store.maintain():
        pass


def fold(records: Iterable[Record]) -> dict[bytes, Record]:
    """The keys' newest records."""
    state: dict[bytes, Record] = {}
    for record in records:
        if record.type == PUT:
            state[record.key] = record
        elif record.type == DELETE:
            state.pop(record.key, None)
    return state


def may_be(found: Record | None, newest: Record | None) -> bool:
    """Whether a key may show this where the log's end is cut off: its newest record, an older one, or none."""
    if found is None or found == newest:
        return True
    older = Record(PUT, found.key, b"v" + found.key[1:], found.index, found.index)  # what the fill wrote
    return found == older and newest is not None and found.index < newest.index
