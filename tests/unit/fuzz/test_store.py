"""A store whose files were changed at several places at once: a right answer, one that was right once, or an error by name."""

import contextlib
from random import Random

import pytest
from structlog.testing import capture_logs

from kvstore.batch import Record
from kvstore.errors import StoreError
from tests.support.faulty_files import FaultyFiles, Inode
from tests.unit.fuzz.mutations import mutated
from tests.unit.kvstore.support import fill, maintain, may_be, open_store
from tests.unit.kvstore.test_store_damage import kept

TRIES = 120
TAIL = 80  # bytes of the log, about its last batch


@pytest.fixture(scope="module")
def good() -> FaultyFiles:
    """Compacted and not, with hints and without, a horizon, epochs; an end of which nothing says that it was committed."""
    files = kept()
    with open_store(files) as store:
        fill(store, 2, epoch=3)
    return files


def whole(files: FaultyFiles) -> tuple[dict[bytes, Record | None], int]:
    """What the undamaged store shows, and where its log ends."""
    with open_store(files.copy()) as store:
        store.commit(store.end.index)
        return {b"k%d" % i: store.get(b"k%d" % i) for i in range(40)}, store.end.index


@pytest.mark.parametrize("seed", range(4))
def test_a_store_of_changed_files_shows_nothing_that_was_never_written(good: FaultyFiles, seed: int) -> None:
    """Its files are opened, read, kept small and verified; damage ends that with one of the store's own errors."""
    image, rng, opened = good.snapshot(), Random(seed), 0
    expected, end = whole(good)
    shorter, last = 0, max(path for path in image if path.suffix == ".log")
    for _ in range(TRIES):
        changed = dict(image)
        for path in rng.sample(sorted(image), rng.choice([1, 1, 2])):
            changed[path] = mutated(rng, [image[path]])
        if rng.random() < 0.3:
            changed = image | {last: image[last][:-TAIL] + mutated(rng, [image[last][-TAIL:]])}
        files = FaultyFiles()
        files.seen = {path: Inode(bytearray(data), data) for path, data in changed.items()}
        with contextlib.suppress(StoreError), capture_logs(), open_store(files) as store:
            opened += 1
            store.commit(store.end.index)
            cut = store.end.index < end
            shorter += cut
            for key, newest in expected.items():
                found = store.get(key)
                assert found == newest or (cut and may_be(found, newest)), f"{key!r} is {found}"
            maintain(store)
            for _ in range(store.segments):
                store.verify()
    assert opened > 5, "changes that can be read over are among them"
    assert 0 < shorter < opened, "as are torn ends"
