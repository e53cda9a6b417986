"""Whose directory it is, and the epoch table."""

import pytest

from kvstore.checksum import crc32c
from kvstore.errors import CorruptionError, FormatVersionError, WrongClusterError
from kvstore.meta import EPOCHS, META, Meta, check_owner, epoch_at, read_epochs, read_meta, write_epochs, write_meta
from tests.support.faulty_files import CrashError, FaultyFiles
from tests.unit.kvstore.support import CLUSTER, DATA

MINE = Meta(CLUSTER, 3, "i1", "c-p3-0", replication={"epoch": 4, "in_sync": ["a"]})


def with_file(name: str, data: bytes) -> FaultyFiles:
    files = FaultyFiles()
    files.open(DATA / name, create=True).write(data, 0)
    return files


def written() -> tuple[bytes, bytes]:
    files = FaultyFiles()
    write_meta(files, DATA, MINE)
    write_epochs(files, DATA, [(1, 1), (3, 10)])
    return files.read(DATA / META), files.read(DATA / EPOCHS)


def test_an_unused_directory_says_nothing() -> None:
    assert read_meta(FaultyFiles(), DATA) is None
    assert read_epochs(FaultyFiles(), DATA) is None


def test_what_is_written_is_read() -> None:
    files = FaultyFiles()
    write_meta(files, DATA, MINE)
    write_epochs(files, DATA, [(1, 1), (3, 10)])
    files.crash()
    assert read_meta(files, DATA) == MINE
    assert read_epochs(files, DATA) == ((1, 1), (3, 10))


@pytest.mark.parametrize("step", range(1, 6))
def test_a_crash_on_the_way_leaves_the_old_or_the_new(step: int) -> None:
    files = FaultyFiles()
    write_meta(files, DATA, MINE)
    files.crash_in = step
    with pytest.raises(CrashError):
        write_meta(files, DATA, Meta(CLUSTER, 3, "i2"))
    files.crash()
    assert read_meta(files, DATA) == MINE


def test_every_flipped_byte_is_noticed() -> None:
    meta, epochs = written()
    for at in range(len(meta)):
        with pytest.raises(CorruptionError):
            read_meta(with_file(META, meta[:at] + bytes([meta[at] ^ 1]) + meta[at + 1 :]), DATA)
    for at in range(len(epochs)):
        with pytest.raises(CorruptionError):
            read_epochs(with_file(EPOCHS, epochs[:at] + bytes([epochs[at] ^ 1]) + epochs[at + 1 :]), DATA)


def test_every_shorter_file_is_refused() -> None:
    meta, _ = written()
    for length in range(len(meta)):
        with pytest.raises(CorruptionError):
            read_meta(with_file(META, meta[:length]), DATA)


def with_version(data: bytes, version: int) -> bytes:
    head = data[:8] + version.to_bytes(2, "little") + data[10:16]
    return head + crc32c(head + data[20:]).to_bytes(4, "little") + data[20:]


def test_a_newer_file_is_refused_as_newer() -> None:
    meta, epochs = written()
    with pytest.raises(FormatVersionError, match="meta has format version 2; this release knows versions up to 1"):
        read_meta(with_file(META, with_version(meta, 2)), DATA)
    with pytest.raises(FormatVersionError, match="Run the release that wrote it"):
        read_epochs(with_file(EPOCHS, with_version(epochs, 9)), DATA)
    with pytest.raises(CorruptionError, match="version 0"):
        read_meta(with_file(META, with_version(meta, 0)), DATA)


def resealed(data: bytes, content: bytes) -> bytes:
    return with_version(data[:12] + len(content).to_bytes(4, "little") + data[16:20] + content, 1)


def test_content_that_makes_no_sense_is_refused() -> None:
    meta, epochs = written()
    for content in (b"", b"{}", b"[]", b'{"surprise": 1}', b"\xff"):
        with pytest.raises(CorruptionError, match="meta file"):
            read_meta(with_file(META, resealed(meta, content)), DATA)
    with pytest.raises(CorruptionError, match="whole number"):
        read_epochs(with_file(EPOCHS, resealed(epochs, bytes(17))), DATA)
    rows = b"".join(n.to_bytes(8, "little") for n in (2, 1, 1, 9))
    with pytest.raises(CorruptionError, match="epoch 1 from 9 behind epoch 2 from 1"):
        read_epochs(with_file(EPOCHS, resealed(epochs, rows)), DATA)


def test_another_clusters_directory_is_refused_naming_both() -> None:
    with pytest.raises(WrongClusterError, match=f"belongs to cluster {CLUSTER}, not to cluster other"):
        check_owner(MINE, DATA, "other", 3)
    with pytest.raises(WrongClusterError, match=r"belongs to partition 3 of cluster .*, not to partition 4"):
        check_owner(MINE, DATA, CLUSTER, 4)
    check_owner(MINE, DATA, CLUSTER, 3)


def test_the_epoch_of_an_index() -> None:
    table = [(2, 1), (5, 10)]
    assert [epoch_at(table, i) for i in (0, 1, 9, 10, 99)] == [0, 2, 2, 5, 5]
