"""What a reader of a failing run is told."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvnode.core.replica import Replica
from kvstore.store import Store
from tests.simulation.checks import Checker
from tests.simulation.explain import INVARIANTS, explain
from tests.simulation.run import simulate
from tests.simulation.schedule import Options, World

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
        ("core", Checker, "check_log"),
        ("whole", Replica, "step"),
        ("whole", Checker, "check_log"),
        ("store", Store, "flush"),
    ],
)
def test_what_the_code_raises_is_told_with_the_place(
    world: World, broken: type, call: str, monkeypatch: pytest.MonkeyPatch
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


def test_a_world_that_cannot_be_made_is_a_failing_seed() -> None:
    """With its command and the place, so that a hunt goes on."""
    told = explain(simulate(Options(1, replicas=0)))
    assert told.startswith("BROKEN: the code raised IndexError")
    assert "--replicas 0" in told
    assert "tests/simulation/cluster.py:" in told
