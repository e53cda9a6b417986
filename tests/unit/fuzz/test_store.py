"""A store whose files were changed at several places at once: a right answer, one that was right once, or an error by name."""

import contextlib
from random import Random

import pytest
from structlog.testing import capture_logs

from kvstore.batch import Record
from kvstore.errors import StoreError
from tests.support.faulty_files import FaultyFiles, Inode
from tests.unit.fuzz.mutations import mutated
from tests.unit.kvstore.support import maintain, open_store
from tests.unit.kvstore.test_store_damage import kept

TRIES = 120


@pytest.fixture(scope="module")
def good() -> FaultyFiles:
    """Compacted and not, with hints and without, a horizon, epochs."""
    return kept()


def ever_written(files: FaultyFiles) -> dict[bytes, set[Record | None]]:
    """What each key ever held: the log has it, but for what was compacted away, which the fill wrote."""
    with open_store(files.copy()) as store:
        store.commit(store.end.index)
        now = {b"k%d" % i: store.get(b"k%d" % i) for i in range(40)}
    return {key: {record, None} for key, record in now.items()}


@pytest.mark.parametrize("seed", range(4))
def test_a_store_of_changed_files_shows_nothing_that_was_never_written(good: FaultyFiles, seed: int) -> None:
    """Its files are opened, read, kept small and verified; damage ends that with one of the store's own errors."""
    image, rng, opened = good.snapshot(), Random(seed), 0
    expected = ever_written(good)
    for _ in range(TRIES):
        changed = dict(image)
        for path in rng.sample(sorted(image), rng.choice([1, 1, 2])):
            changed[path] = mutated(rng, [image[path]])
        files = FaultyFiles()
        files.seen = {path: Inode(bytearray(data), data) for path, data in changed.items()}
        with contextlib.suppress(StoreError), capture_logs(), open_store(files) as store:
            opened += 1
            store.commit(store.end.index)
            for key, records in expected.items():
                found = store.get(key)
                old = Record(found.type, key, b"v" + key[1:], found.version, found.index) if found else None
                assert found in records or found == old, f"{key!r} is {found}"
            maintain(store)
            for _ in range(store.segments):
                store.verify()
    assert opened > 5, "changes that can be read over are among them"
