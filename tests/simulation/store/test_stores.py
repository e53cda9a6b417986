"""Some hundred seeds of stores that copy each other's logs on faulty disks; see docs/correctness.md."""

import re
from collections import Counter
from dataclasses import replace

import pytest

from kvstore.store import Store
from tests.simulation.explain import explain
from tests.simulation.run import simulate
from tests.simulation.schedule import Options, parse_faults, parse_requests
from tests.simulation.shrink import shrink
from tests.simulation.store.plan import FAULTS
from tests.simulation.trying import told_twice, try_seed

CHUNK = 20
CASES = [(3, first) for first in range(0, 140, CHUNK)]
CASES += [(2, first) for first in range(1000, 1060, CHUNK)]


@pytest.mark.parametrize(("replicas", "first"), CASES)
def test_no_store_loses_or_makes_up_anything_whatever_its_disk_does(replicas: int, first: int) -> None:
    """A failing seed gives the command that replays it, and the end of its timeline."""
    for seed in range(first, first + CHUNK):
        assert try_seed(Options(seed, replicas, world="store")).served > 0


def test_seeds_try_every_kind_of_fault_and_the_faults_bite() -> None:
    """Disks fail while stores use them, logs are cut and compacted, deletes go, copies begin in compacted logs."""
    counts: Counter[str] = Counter()
    for seed in range(3000, 3040):
        report = simulate(Options(seed, world="store"))
        assert report.failure is None, report.options.command
        counts.update(report.counts)
    assert {f"fault {kind}" for kind in FAULTS} <= set(counts)
    for what in ("a sync fails", "a write fails", "there is no room", "a place can't be read", "a turned bit is read"):
        assert counts[what] > 5, counts
    for what in ("cuts", "rebuilds", "pieces of upkeep", "copies of compacted logs", "deletes let go"):
        assert counts[what] > 5, counts


def test_a_seed_of_stores_always_gives_the_same_run() -> None:
    """In another process, too, where sets have another order."""
    one, other = told_twice("--world", "store", "--seed", "7", "--details")
    assert one == other


def test_a_failing_run_of_stores_shrinks_and_its_command_replays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """To a few faults and operations, told in words."""
    monkeypatch.setattr(Store, "_write", lambda store, batches: store._log.write(batches, sync=True))
    report = next(r for r in (simulate(Options(seed, world="store")) for seed in range(20)) if r.failure is not None)
    assert report.failure is not None
    shrunk = shrink(report)
    assert shrunk.failure is not None
    assert shrunk.failure.invariant == report.failure.invariant == 22
    assert len(shrunk.requests) + len(shrunk.faults) <= 8
    found = re.search(r"--world store .*--faults (\S+) --requests (\S+)", shrunk.options.command)
    assert found is not None
    again = simulate(replace(shrunk.options, faults=parse_faults(found[1]), requests=parse_requests(found[2])))
    assert again == shrunk
    text = explain(simulate(replace(shrunk.options, verbose=True)))
    assert text.startswith("BROKEN: invariant 22")
    assert shrunk.options.command in text
