"""Whole clusters under trouble: real nodes, stores, clients and routers on virtual time; see docs/correctness.md."""

from collections import Counter

import pytest

from kvstore.batch import Record, RecordType, iter_batches, iter_records
from kvstore.store import Store
from tests.simulation.report import Report
from tests.simulation.run import simulate
from tests.simulation.schedule import Options
from tests.simulation.trying import told_twice, try_seed
from tests.simulation.whole import cluster
from tests.simulation.whole.redis import NodeRedisClient

CHUNK = 5
AT_LEAST = 40  # seeds with three replicas


def run(seed: int, replicas: int = 3) -> Report:
    return try_seed(Options(seed, replicas, world="whole"))


@pytest.mark.parametrize("first", range(1000, 1010, CHUNK))
def test_every_invariant_holds_in_a_whole_cluster_of_two_replicas_whatever_fails(first: int) -> None:
    """A failing seed gives the command that replays it, and the end of its timeline."""
    for seed in range(first, first + CHUNK):
        assert run(seed, replicas=2).served > 0


def test_a_seed_of_a_whole_cluster_always_gives_the_same_run() -> None:
    """In another process, where sets have another order, too."""
    one, other = told_twice("--world", "whole", "--seed", "4", "--details")
    assert one == other


def test_what_is_not_committed_is_noticed_when_redis_clients_are_shown_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, not only where the history tells (invariant 16)."""
    get = Store.get

    def too_early(store: Store, key: bytes) -> Record | None:
        """What the log has of a key, committed or not."""
        newer = [r for _, data in iter_batches(store.read(store.applied, 1 << 20)) for r in iter_records(data)]
        return next((r for r in reversed(newer) if r.key == key and r.type == RecordType.PUT), get(store, key))

    monkeypatch.setattr(Store, "get", too_early)
    monkeypatch.setattr(cluster, "CLIENTS", (NodeRedisClient,))
    failures = [simulate(Options(seed, seconds=1.0, world="whole")).failure for seed in range(4)]
    assert 16 in [failure.invariant for failure in failures if failure is not None]


OFTEN = (
    "epochs",
    "claims",
    "rebuilds",
    "hand-overs",
    "in-sync changes",
    "acknowledged",
    "read",
    "read at a follower",
    "stale reads",
    "groups done",
    "puts done",
    "redis commands",
)
ONCE = (
    "cuts",
    "hand-overs for slow disks",
    "a sync fails",
    "a write fails",
    "a place can't be read",
    "a turned bit is read",
    "there is no room",
    "damage found at a start",
    "damage found by upkeep",
    "damage found while serving",
    "old copies",
    "old copies of leaders",
    "states put back",
    "page caches lost",
    "ends with an error",
    "compactions",
    "purges of deletes",
    "redis commands untold",
    "answers lost",
    "frames lost",
    "frames twice",
    "frames late",
    "operators ended",
    "words of death",
    "pods deleted",
    "pods taken away",
    "replicas added",
    "replicas removed, in sync",
    "replicas removed, leading",
)


def test_every_invariant_holds_in_whole_clusters_and_every_kind_of_fault_bites() -> None:
    """Load without faults proves nothing: leaders change, disks are found damaged, old copies come back, within 100 seeds."""
    counts: Counter[str] = Counter()
    missing = {*OFTEN, *ONCE}
    for seed in range(100):
        report = run(seed)
        assert report.served > 0
        counts.update(report.counts)
        kinds = [what for what in counts if what.startswith("fault ")]  # all that there are
        missing = {what for what in OFTEN if counts[what] <= 5} | {what for what in (*ONCE, *kinds) if not counts[what]}
        if not missing and seed + 1 >= AT_LEAST:
            assert "fault lost_twice" in kinds, "rare kinds, too"
            return
    raise AssertionError(f"not seen: {missing}")
