"""Outcomes as a table for people (docs/benchmarks.md) and as JSON for programs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.machine import Machine
from bench.measure import Outcome

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def number(value: float) -> str:
    """Three digits that count: 12,345 or 12.3 or 0.123."""
    magnitude = abs(value)
    return f"{value:,.0f}" if magnitude >= 100 else f"{value:.1f}" if magnitude >= 10 else f"{value:.3g}"


def cell(outcome: Outcome) -> str:
    """Median, range, and the median latency where there is one."""
    text = f"**{number(outcome.median)}**"
    if len(outcome.samples) > 1:
        text += f" ({number(outcome.low)}–{number(outcome.high)})"  # noqa: RUF001 a range
    if outcome.p50 is not None:
        text += f"<br>p50 {number(outcome.p50 * 1e3)} ms"
    if outcome.p99 is not None:
        text += f", p99 {number(outcome.p99 * 1e3)} ms"
    if outcome.p999 is not None:
        text += f", p99.9 {number(outcome.p999 * 1e3)} ms"
    return text


def table(outcomes: Sequence[Outcome]) -> str:
    """One group: rows down, columns across, in the order measured."""
    rows = list(dict.fromkeys((o.row, o.unit) for o in outcomes))
    columns = list(dict.fromkeys(o.column for o in outcomes))
    cells = {(o.row, o.column): cell(o) for o in outcomes}
    lines = ["| | unit | " + " | ".join(columns) + " |", "|---|---|" + "---|" * len(columns)]
    lines += [
        f"| {row} | {unit} | " + " | ".join(cells.get((row, c), "") for c in columns) + " |" for row, unit in rows
    ]
    return "\n".join(lines)


def markdown(outcomes: Sequence[Outcome], machine: Machine, facts: Mapping[str, str], goals: str) -> str:
    """The machine and the facts, the table of goals, then all groups."""
    parts = [
        f"Measured on {machine.date}: {machine.cpu}, {machine.cores} cores, {machine.memory_gib} GiB, {machine.kernel}, "
        f"Python {machine.python}, data on {machine.file_system}. "
        + " ".join(f"{name}: {value}." for name, value in facts.items())
    ]
    if goals:
        parts += ["### Goals", goals, "![rates](benchmarks.svg)"]
    for group in dict.fromkeys(o.group for o in outcomes):
        parts += [f"### {group}", table([o for o in outcomes if o.group == group])]
    return "\n\n".join(parts)


def as_json(outcomes: Sequence[Outcome], machine: Machine, facts: Mapping[str, str]) -> str:
    """Everything measured, every round."""
    series: list[dict[str, Any]] = [
        {
            "group": o.group,
            "row": o.row,
            "column": o.column,
            "unit": o.unit,
            "median": o.median,
            "low": o.low,
            "high": o.high,
            "p50_seconds": o.p50,
            "p99_seconds": o.p99,
            "p999_seconds": o.p999,
            "rounds": [s.value for s in o.samples],
        }
        for o in outcomes
    ]
    return json.dumps({"machine": machine.to_json(), "facts": dict(facts), "series": series}, indent=2) + "\n"


def put_into(document: Path, text: str) -> None:
    """Replace what stands between the two marks; ValueError when the document lacks them."""
    before, begin, rest = document.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document} has no {BEGIN} and {END}: put them where the table belongs")
    document.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
