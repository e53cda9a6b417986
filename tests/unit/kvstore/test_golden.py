"""The formats, byte by byte, as released: these files only ever get additions beside them."""

from pathlib import Path

from kvstore.batch import encode_batch, iter_batches, iter_records
from kvstore.meta import EPOCHS, META, Meta, read_epochs, read_meta, write_epochs, write_meta
from kvstore.segment import HEADER_BYTES, SegmentHeader, read_segment_header, segment_header
from kvstore.sessions import session_key
from tests.support.faulty_files import FaultyFiles, Inode
from tests.unit.kvstore.support import CLUSTER, DATA, DELETE, EPOCH, PUT, SESSION

GOLDEN = Path(__file__).parent / "golden"
RECORDS = [
    (EPOCH, b"", b"", 5, 41),
    (PUT, b"key", b"value", 6 << 22, 42),
    (DELETE, b"old", b"", 7 << 22, 43),
    (SESSION, session_key(b"client-0123456ab", 9), b"\x01ok", 8 << 22, 44),
]
META_CONTENT = Meta(CLUSTER, 3, "d34db33f", "c-p3-0", replication={"accepted_epoch": 7})


def golden(name: str) -> bytes:
    lines = (GOLDEN / name).read_text().splitlines()
    return bytes.fromhex("".join(line.partition("#")[0] for line in lines))


def files_with(name: str, data: bytes) -> FaultyFiles:
    files = FaultyFiles()
    files.seen[DATA / name] = Inode(bytearray(data))
    return files


def test_a_segment_is_written_as_released() -> None:
    assert segment_header(41, gap=True) + encode_batch(7, 41, 40, RECORDS) == golden("segment.hex")


def test_a_released_segment_is_read() -> None:
    data = golden("segment.hex")
    assert read_segment_header(data, DATA / "00000000000000000041.log") == SegmentHeader(
        41, gap=True, clean_to=0, length=HEADER_BYTES
    )
    ((header, batch),) = iter_batches(data[HEADER_BYTES:])
    assert header == (7, 41, 44, 4, 40, len(batch))
    assert list(iter_records(batch)) == RECORDS


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
