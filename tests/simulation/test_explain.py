"""What a reader of a failing run is told."""

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from kvnode.core.replica import Replica
from kvnode.core.types import START
from kvnode.service import Service
from kvstore.errors import CorruptionError
from kvstore.store import Store
from tests.simulation import cluster as core
from tests.simulation.disk import Disk
from tests.simulation.explain import INVARIANTS, explain
from tests.simulation.run import simulate
from tests.simulation.schedule import Options, World
from tests.simulation.store import world as store
from tests.simulation.whole import cluster as whole
from tests.support.faulty_files import CrashError
from tests.support.history import Operation

HERE = Path(__file__).parent


def _invariants_in(source: str) -> Iterator[int]:
    """The numbers with which a file's checks fail: of `fail` and `broken`, an argument that is a number."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr in ("fail", "broken"):
            plain = [a for a in node.args[:2] if isinstance(a, ast.Constant | ast.IfExp)]
            inside = (inner for argument in plain for inner in ast.walk(argument))
            yield from (i.value for i in inside if isinstance(i, ast.Constant) and type(i.value) is int)


def test_every_invariant_that_a_check_can_break_has_its_text() -> None:
    """A headline tells the rule, whichever is broken."""
    found = {i for file in HERE.rglob("*.py") for i in _invariants_in(file.read_text())}
    assert {1, 12, 13, 14, 15, 23, 27} <= found
    assert found <= set(INVARIANTS)
    assert list(INVARIANTS) == sorted(INVARIANTS)


def _stumble(*_: object, **__: object) -> None:
    raise KeyError("nobody")


@pytest.mark.parametrize(
    ("world", "broken", "call"),
    [
        ("core", Replica, "step"),
        ("core", core, "check_log"),
        ("whole", Replica, "step"),
        ("whole", whole, "check_log"),
        ("store", Store, "flush"),
    ],
)
def test_what_the_code_raises_is_told_with_the_place(
    world: World, broken: object, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process or outside of all: a failing seed like any other, and no rule is named."""
    monkeypatch.setattr(broken, call, _stumble)
    report = simulate(Options(1, world=world, seconds=0.5))
    assert report.failure is not None
    told = explain(report)
    assert told.startswith("BROKEN: the code raised KeyError: 'nobody'\n  ")
    assert "invariant" not in told.partition("WHO DID WHAT")[0]
    frames = told.partition("WHERE IT RAISED\n")[2].partition("\n\n")[0].splitlines()
    assert frames[-1].startswith("  tests/simulation/test_explain.py:")
    assert frames[-1].endswith('in _stumble: raise KeyError("nobody")')
    assert "asyncio" not in "".join(frames)
    assert report.options.command in told


def test_an_error_that_breaks_a_rule_is_told_with_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that does not open on a good disk has lost what it had."""

    def damaged(*_: object, **__: object) -> None:
        raise CorruptionError("/data/1.log", 7, "nothing is right here")

    monkeypatch.setattr(Store, "open", damaged)
    told = explain(simulate(Options(1, world="store")))
    assert told.startswith("BROKEN: invariant 22 (")
    assert "in damaged: raise CorruptionError(" in told.partition("WHERE IT RAISED\n")[2]


def test_a_machine_that_stops_where_nobody_expects_it_is_a_failing_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a modelled disk raises then is no Exception, so that the code can't catch it; it must not end a hunt either."""

    def stops(*_: object) -> None:
        raise CrashError("in the middle")

    monkeypatch.setattr(store.World, "_settle", stops)
    report = simulate(Options(1, world="store"))
    assert explain(report).startswith("BROKEN: the code raised CrashError: in the middle")
    assert report.lines


def test_places_in_a_log_are_told_as_in_the_timeline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epoch and index, with a colon."""
    monkeypatch.setattr(Disk, "durable", property(lambda _: START))
    report = simulate(Options(1, seconds=0.5))
    assert report.failure is not None
    assert re.search(r"\d+.* 0:0", report.failure.what)


def test_a_world_that_cannot_be_made_is_a_failing_seed() -> None:
    """With its command and the place, so that a hunt goes on."""
    told = explain(simulate(Options(1, replicas=0)))
    assert told.startswith("BROKEN: the code raised IndexError")
    assert "--replicas 0" in told
    assert "tests/simulation/cluster.py:" in told


@pytest.mark.parametrize(("world", "first", "seconds"), [("core", 0, 12.0), ("whole", 23, 3.0)])
def test_what_took_effect_twice_is_told_with_its_request_and_times(
    world: World, first: int, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it was asked, appended each time, and told; the timeline has the request by the same name at those times."""
    monkeypatch.setattr(Service, "_answer_repeat", lambda *_: False)
    runs = (simulate(Options(seed, world=world, seconds=seconds, verbose=True)) for seed in range(first, first + 20))
    report = next(r for r in runs if r.failure is not None)
    assert report.failure is not None
    appended = r"at \d+:\d+ \(appended by \S+ at [\d.]+ s\)"
    told = re.search(
        rf"request (\d+:\d+) \(asked at ([\d.]+) s, told at ([\d.]+) s\) took effect twice: {appended}, and {appended}",
        report.failure.what,
    )
    assert told is not None, report.failure.what
    assert ("partition" in report.failure.what) == (world == "whole")
    lines = [(f"{line.at:.6f}", line.what) for line in report.lines if f"({told[1]})" in line.what]
    assert lines[0][0] == told[2]
    assert lines[0][1].startswith("asks")
    assert lines[-1][0] == told[3]
    assert lines[-1][1].startswith("told")


@pytest.mark.parametrize("world", ["core", "whole"])
def test_what_a_history_shows_can_be_found_in_the_timeline(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every operation and Redis command that is judged has its request's name, by which the timeline has it, too."""

    def all_are_lost(operations: Sequence[Operation], _: object) -> list[str]:
        return [f"{o.whose} {o.during}" for o in operations]

    monkeypatch.setattr(core, "lost_writes", all_are_lost)
    monkeypatch.setattr(whole, "lost_writes", all_are_lost)
    monkeypatch.setattr(whole, "check_groups", lambda commands, _: [str(command) for command in commands])
    report = simulate(Options(3, world=world, seconds=1.0, verbose=True))
    assert report.failure is not None
    problems = report.failure.what.splitlines()
    names = {found[0] for p in problems if (found := re.search(r"\(\d+:\d+\)", p))}
    assert len(names) > 10
    assert all(re.search(r"client \d+ \(\d+:\d+\)", p) for p in problems)
    timeline = " ".join(line.what for line in report.lines)
    assert [name for name in names if name not in timeline] == []
