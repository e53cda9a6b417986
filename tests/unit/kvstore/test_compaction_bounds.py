"""What a compaction takes from those who are served meanwhile is bounded, and how far it is can be seen."""

import threading

import pytest

from kvstore import maintenance
from kvstore.maintenance import HaltedError, Pace, Progress
from kvstore.store import Store
from tests.support.faulty_files import FaultyFiles
from tests.unit.kvstore.support import DATA, batch, fill, maintain, open_store, put

RATE = 1 << 20


class Watch:
    """Looks at a store and its disk whenever its compaction pauses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, files: FaultyFiles) -> None:
        self.store: Store | None = None
        self.files = files
        self.seen: list[Progress] = []
        self.most_bytes = 0
        monkeypatch.setattr(maintenance.Pace, "spend", lambda _, count: self.look())

    def look(self) -> None:
        if self.store is not None:
            self.seen.append(self.store.progress)
            self.most_bytes = max(self.most_bytes, self.used)

    @property
    def used(self) -> int:
        return sum(len(data) for data in self.files.snapshot().values())


class Halt(threading.Event):
    """Time passes when it is waited for: as long as was asked, and by `late` longer."""

    def __init__(self, late: float = 0.0) -> None:
        super().__init__()
        self.waited = 0.0
        self._late = late

    def wait(self, timeout: float | None = None) -> bool:
        self.waited += (timeout or 0.0) + self._late
        return self.is_set()

    def now(self) -> float:
        return 1e6 + self.waited


def overwritten(store: Store) -> None:
    for _ in range(6):
        for key in range(10):
            first = store.end.index + 1
            store.append(batch(first, put(b"k%d" % key, bytes(100), first)))
            store.flush()
            store.commit(first)


@pytest.mark.parametrize("late", [0.0, 0.001])
@pytest.mark.parametrize("waiting", [1, 3])
def test_it_reads_at_its_rate_for_each_segment_that_waits(waiting: int, late: float) -> None:
    """It waits after each slice for as long as the slice may take; what a pause took too long, the next ones make up for."""
    halt = Halt(late)
    pace = Pace(RATE, halt, halt.now)
    pace.waiting = waiting
    for _ in range(1000):
        pace.spend(5000)
    assert halt.waited == pytest.approx(1000 * 5000 / RATE / waiting, rel=0.02)


def test_after_a_rest_it_does_not_make_up_for_the_rest() -> None:
    halt = Halt()
    pace = Pace(RATE, halt, halt.now)
    pace.spend(1 << 20)
    halt.waited += 60
    before = halt.waited
    pace.spend(1 << 20)
    assert halt.waited - before == pytest.approx(1, rel=0.02)


def test_what_waits_can_be_seen() -> None:
    """All that is sealed waits until it has a hint, or is compacted."""
    files = FaultyFiles()
    store = open_store(files)
    overwritten(store)
    assert store.progress.waiting == 0, "nothing was looked at yet"
    assert store.maintain()
    assert store.progress.waiting > 2
    maintain(store)
    assert store.progress.waiting == 0


def test_without_a_rate_it_waits_for_nothing_and_is_halted_all_the_same() -> None:
    """A store that closes need not wait for it."""
    halt = Halt()
    pace = Pace(0, halt)
    for _ in range(1000):
        pace.spend(5000)
    assert halt.waited == 0
    halt.set()
    with pytest.raises(HaltedError):
        pace.spend(1 << 20)


def test_how_far_it_is_can_be_seen_and_how_much_it_gained(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it runs: what it reads in all, and how much of that it has; afterwards nothing of that, and the sum."""
    monkeypatch.setattr(maintenance, "_SLICE", 200)
    files = FaultyFiles()
    watch = Watch(monkeypatch, files)
    store = watch.store = open_store(files)
    overwritten(store)
    before = store.log_bytes

    maintain(store)

    running = [p for p in watch.seen if p.source_bytes]
    assert running
    assert all(p.read_bytes <= p.source_bytes <= before for p in running)
    assert len({p.read_bytes for p in running}) > 5
    after = store.progress
    assert (after.source_bytes, after.read_bytes) == (0, 0)
    assert after.compactions >= 1
    assert after.reclaimed_bytes == before - store.log_bytes


def test_it_takes_no_more_disk_than_what_it_rewrites(monkeypatch: pytest.MonkeyPatch) -> None:
    """At worst nothing of it is garbage and the sources stay until the output is complete."""
    files = FaultyFiles()
    watch = Watch(monkeypatch, files)
    store = open_store(files)
    fill(store, 60)  # nothing but small segments that become fewer
    before, sources = watch.used, store.log_bytes
    watch.store = store

    maintain(store)

    assert store.progress.compactions
    hints = sum(len(data) for name, data in files.snapshot().items() if str(name).endswith(".hint"))
    assert watch.most_bytes <= before + sources + 2 * hints
    assert not [name for name in files.list(DATA) if name.endswith(".tmp")]
