"""The formats, byte by byte, as released: these files only ever get additions beside them."""

from array import array
from pathlib import Path

from kvstore.batch import BatchHeader, Record, encode_batch, encode_records, iter_batches, iter_records, seal_batch
from kvstore.hint import Hint, decode_hint, encode_hint
from kvstore.horizon import HORIZON, Horizon, read_horizon, write_horizon
from kvstore.meta import EPOCHS, META, Meta, read_epochs, read_meta, write_epochs, write_meta
from kvstore.segment import (
    HEADER_BYTES,
    RECYCLED_HEADER_BYTES,
    SegmentHeader,
    compacted_header,
    read_segment_header,
    segment_header,
)
from kvstore.sessions import session_key
from tests.support.faulty_files import FaultyFiles, Inode
from tests.unit.kvstore.support import CLUSTER, DATA, DELETE, EPOCH, PUT, SESSION, fill, open_store, recycled_head

GOLDEN = Path(__file__).parent / "golden"
RECORDS = [
    (EPOCH, b"", b"", 5, 41),
    (PUT, b"key", b"value", 6 << 22, 42),
    (DELETE, b"old", b"", 7 << 22, 43),
    (SESSION, session_key(b"client-0123456ab", 9), b"\x01ok", 8 << 22, 44),
]
KEPT = [RECORDS[0], *RECORDS[2:]]  # what a compaction up to 60 kept of them
HINT = Hint(  # of the segment in segment.hex
    first=41,
    last=44,
    size=216,
    clean_to=0,
    as_of=60,
    highest_version=8 << 22,
    epochs=[(7, 41)],
    marks=[(41, HEADER_BYTES)],
    lengths=array("H", [3, 3]),
    places=array("Q", [97 << 21 | 35, 132 << 21]),
    names=b"keyold",
    sessions=encode_records(44, RECORDS[3:])[0],
)
META_CONTENT = Meta(CLUSTER, 3, "d34db33f", "c-p3-0", replication={"accepted_epoch": 7})


def golden(name: str) -> bytes:
    lines = (GOLDEN / name).read_text().splitlines()
    return bytes.fromhex("".join(line.partition("#")[0] for line in lines))


def files_with(name: str, data: bytes) -> FaultyFiles:
    files = FaultyFiles()
    files.seen[DATA / name] = Inode(bytearray(data))
    return files


def test_a_segment_is_written_as_released() -> None:
    assert segment_header(41) + encode_batch(7, 41, 40, RECORDS) == golden("segment.hex")


def test_a_released_segment_is_read() -> None:
    data = golden("segment.hex")
    assert read_segment_header(data, DATA / "00000000000000000041.log") == SegmentHeader(
        41, clean_to=0, length=HEADER_BYTES
    )
    ((header, batch),) = iter_batches(data[HEADER_BYTES:])
    assert header == (7, 41, 44, 4, 40, len(batch))
    assert list(iter_records(batch)) == RECORDS


def test_a_recycled_segment_is_written_and_read_as_released() -> None:
    data = golden("recycled.hex")
    size = len(data) - len(b"older")
    assert recycled_head(41, size, RECYCLED_HEADER_BYTES) + encode_batch(7, 41, 40, RECORDS) + b"older" == data
    files, path = FaultyFiles(), DATA / "00000000000000000041.log"
    assert read_segment_header(data, path) == SegmentHeader(41, clean_to=0, length=48, used=(size, 48))
    with open_store(files, segment_bytes=10_000) as store:
        fill(store, 40, epoch=7)
    files.seen[path] = Inode(bytearray(data))
    with open_store(files) as store:
        assert (store.end.index, store.torn_bytes) == (44, 0)


def test_a_compacted_segment_is_written_as_released() -> None:
    body = encode_records(41, KEPT[:1])[0] + encode_records(43, KEPT[1:])[0]
    batch = seal_batch(epoch=7, first=41, last=44, commit=40, count=3, body=body)
    assert compacted_header(41, 60) + batch == golden("compacted.hex")


def test_a_released_compacted_segment_is_read() -> None:
    data = golden("compacted.hex")
    header = read_segment_header(data, DATA / "00000000000000000041.log")
    assert header == SegmentHeader(41, clean_to=60, length=36)
    ((batch_header, batch),) = iter_batches(data[header.length :])
    assert batch_header == BatchHeader(7, 41, 44, 3, 40, len(batch))
    assert list(iter_records(batch)) == KEPT


def test_a_hint_is_written_as_released() -> None:
    assert len(golden("segment.hex")) == HINT.size
    assert golden("segment.hex")[97:132] == encode_records(42, RECORDS[1:2])[0]
    assert encode_hint(HINT) == golden("hint.hex")


def test_a_released_hint_is_read() -> None:
    found = decode_hint(golden("hint.hex"), DATA / "00000000000000000041.hint")
    assert found == HINT
    assert found.keys() == [b"key", b"old"]


def test_the_horizon_is_written_as_released() -> None:
    files = FaultyFiles()
    write_horizon(files, DATA, Horizon(60, 43))
    assert files.read(DATA / HORIZON) == golden("horizon.hex")


def test_a_released_horizon_is_read() -> None:
    assert read_horizon(files_with(HORIZON, golden("horizon.hex")), DATA) == Horizon(60, 43)


def test_meta_is_written_as_released() -> None:
    files = FaultyFiles()
    write_meta(files, DATA, META_CONTENT)
    assert files.read(DATA / META) == golden("meta.hex")


def test_a_released_meta_is_read() -> None:
    assert read_meta(files_with(META, golden("meta.hex")), DATA) == META_CONTENT


def test_the_epoch_table_is_written_as_released() -> None:
    files = FaultyFiles()
    write_epochs(files, DATA, [(1, 1), (7, 41)])
    assert files.read(DATA / EPOCHS) == golden("epochs.hex")


def test_a_released_epoch_table_is_read() -> None:
    assert read_epochs(files_with(EPOCHS, golden("epochs.hex")), DATA) == ((1, 1), (7, 41))


def test_a_released_store_is_opened_and_written_to() -> None:
    """A whole directory: two epochs compacted, with a delete and a session, and one more behind; see `golden/store`."""
    files = FaultyFiles()
    for file in sorted((GOLDEN / "store").iterdir()):
        files.seen[DATA / file.stem] = Inode(bytearray(golden(f"store/{file.name}")))
    again = {b"k%d" % i: Record(PUT, b"k%d" % i, b"again", i + 6, i + 6) for i in (1, 3, 4, 5, 6)}
    last = {b"k%d" % i: Record(PUT, b"k%d" % i, b"v%d" % i, i, i) for i in (14, 15, 16, 17)}
    for _ in range(2):
        with open_store(files, pod="c-p3-0") as store:
            assert (store.incarnation, store.epochs) == ("incarnation-1", ((1, 1), (2, 7), (3, 14)))
            assert (store.horizon, store.purged_to) == (17, 0)
            store.commit(store.end.index)
            assert {k: store.get(k) for k in again | last} == again | last
            assert store.get(b"k2") is None
            assert store.sessions.lookup(b"client-0123456ab", 9) == b"\x01ok"
            for _ in range(store.segments):
                store.verify()
            fill(store, 1, epoch=3)
            number = store.end.index
            last[b"k%d" % number] = Record(PUT, b"k%d" % number, b"v%d" % number, number, number)
    assert store.end.index == 19
