"""From a failing run to a short one that breaks the same invariant.

Left out, as long as the failure stays: time after it, the mischief of whole parts of the world, faults, clients,
requests. Lists are reduced by delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing
Input", 2002); every fault and request has randomness of its own, so what is left out changes little of the rest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import TypeVar

from tests.simulation.record import Failure
from tests.simulation.report import Report
from tests.simulation.run import simulate
from tests.simulation.schedule import CALM, STORE_CALM, Options

T = TypeVar("T")

MOST_RUNS = 400


@dataclass(slots=True)
class _Hunt:
    """The best run so far."""

    best: Report
    failure: Failure
    runs: int = 0

    def fails(self, options: Options) -> bool:
        """Whether this run fails alike; then it is the best."""
        if self.runs >= MOST_RUNS:
            return False
        self.runs += 1
        report = simulate(replace(options, verbose=False))
        if report.failure is None or not report.failure.is_like(self.failure):
            return False
        self.best = report
        return True


def shrink(report: Report, *, tell: Callable[[str], None] = lambda _: None) -> Report:
    """The shortest run found; `report`'s own when nothing can be left out."""
    assert report.failure is not None, "a run that did not fail can't be shrunk"
    hunt = _Hunt(report, report.failure)
    faults = frozenset(s.number for s in report.faults)
    hunt.fails(replace(report.options, faults=faults, requests=report.requests))  # the explicit lists
    before = (-1, -1)
    while _size(hunt.best) != before:
        before = _size(hunt.best)
        _shorten(hunt)
        for part in CALM if report.options.world != "store" else STORE_CALM:
            hunt.fails(replace(hunt.best.options, calm=hunt.best.options.calm | {part}))
        hunt.fails(_with_faults(hunt, [s.number for s in hunt.best.faults]))  # none that is too late to strike
        reduce([s.number for s in hunt.best.faults], lambda kept: hunt.fails(_with_faults(hunt, kept)))
        clients = sorted({a.client for a in hunt.best.requests})
        reduce(clients, lambda kept: hunt.fails(_with_clients(hunt, kept)))
        reduce(hunt.best.requests, lambda kept: hunt.fails(replace(hunt.best.options, requests=tuple(kept))))
        tell(f"{hunt.runs} runs: {_describe(hunt.best)}")
    tell(f"shrunk from {_describe(report)} to {_describe(hunt.best)}")
    return hunt.best


def _size(report: Report) -> tuple[int, int]:
    return len(report.faults), len(report.requests)


def _describe(report: Report) -> str:
    failure = report.failure
    assert failure is not None
    return f"{len(report.faults)} faults, {len(report.requests)} requests, {failure.at:.2f} s"


def _shorten(hunt: _Hunt) -> None:
    """No faults after the failure: when it is judged at the end, healing comes earlier."""
    last = max((s.at for s in hunt.best.faults), default=0.0)
    for seconds in (0.0, ceil(last) + 1.0, ceil(hunt.best.failure.at if hunt.best.failure else 0.0) + 1.0):
        if seconds < hunt.best.options.seconds and hunt.fails(replace(hunt.best.options, seconds=seconds)):
            return


def _with_faults(hunt: _Hunt, kept: Sequence[int]) -> Options:
    return replace(hunt.best.options, faults=frozenset(kept))


def _with_clients(hunt: _Hunt, kept: Sequence[int]) -> Options:
    requests = tuple(a for a in hunt.best.requests if a.client in kept)
    return replace(hunt.best.options, requests=requests)


def reduce(items: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> Sequence[T]:
    """The items left when no part of them can be taken out with `fails` staying true: ddmin, complements only."""
    items = list(items)
    if not items or fails([]):
        return []
    parts = 2
    while len(items) > 1:
        size = ceil(len(items) / parts)
        for start in range(0, len(items), size):
            rest = [*items[:start], *items[start + size :]]
            if rest and fails(rest):
                items, parts = rest, max(parts - 1, 2)
                break
        else:
            if size == 1:
                break
            parts = min(parts * 2, len(items))
    return items
