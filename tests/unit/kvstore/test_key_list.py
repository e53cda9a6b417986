"""All keys at once, and whether one is there: for scans. And what a group of records in one batch may rely on."""

import pytest

from kvstore.batch import HEADER_BYTES
from tests.support.faulty_files import FaultyFiles
from tests.unit.kvstore.support import batch, delete, open_store, put


def test_the_list_has_the_keys_that_have_a_value() -> None:
    """As far as applied; it is the caller's own."""
    store = open_store(FaultyFiles())
    store.append(batch(1, put(b"a", b"1"), put(b"b", b"2"), delete(b"a")))
    store.flush()
    assert store.key_list() == []
    assert not store.contains(b"b")
    store.commit(3)
    listed = store.key_list()
    assert listed == [b"b"]
    assert store.contains(b"b")
    assert not store.contains(b"a")
    listed.clear()
    assert store.key_list() == [b"b"]


@pytest.mark.parametrize("kept", [1, HEADER_BYTES, HEADER_BYTES + 1, 100, 160])
def test_a_group_in_one_batch_survives_a_torn_write_whole_or_not_at_all(kept: int) -> None:
    """However much of the batch reached the disk: what makes a command that writes several keys atomic."""
    files = FaultyFiles()
    store = open_store(files)
    store.append(batch(1, put(b"a", b"old")))
    store.flush()
    (segment,) = (path for path in files.snapshot() if path.suffix == ".log")
    before = store.log_bytes
    group = batch(2, put(b"a", b"new", 2), put(b"b", b"new", 3), put(b"c", b"x" * 40, 4), commit=1)
    store.append(group)
    store.flush()
    assert kept < len(group)
    torn = files.copy()
    store.close()
    file = torn.open(segment)
    file.write(bytes(len(group) - kept), before + kept)
    again = open_store(torn)
    again.commit(again.end.index)
    assert again.torn_bytes == len(group[:kept].rstrip(b"\0"))
    assert [again.contains(key) for key in (b"a", b"b", b"c")] == [True, False, False]
    record = again.get(b"a")
    assert record is not None
    assert record.value == b"old"
