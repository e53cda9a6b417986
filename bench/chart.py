"""Rates as bars, one picture: plain SVG text, no library."""

from collections.abc import Sequence
from html import escape

from bench.measure import Outcome
from bench.report import number

WIDTH, LABEL, BAR, GAP, HEAD = 860, 300, 16, 6, 34
_COLOURS = {"KVCluster": "#2463a8", "etcd": "#d0802b", "Redis": "#9a9a9a"}


def chart(panels: Sequence[tuple[str, Sequence[Outcome]]]) -> str:
    """One panel of bars per title, each with its own scale; the range of the rounds as a thin line."""
    parts: list[str] = []
    y = 8
    for title, outcomes in panels:
        if not outcomes:
            continue
        parts.append(f'<text x="8" y="{y + 18}" font-weight="bold">{escape(title)}</text>')
        y += HEAD
        most = max(o.high for o in outcomes)
        for outcome in outcomes:
            parts += _bar(outcome, y, (WIDTH - LABEL - 90) / most)
            y += BAR + GAP
        y += GAP
    style = 'font-family="sans-serif" font-size="12" fill="#333"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}" {style}>'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{y}" fill="white"/>', *parts, "</svg>"]) + "\n"


def _bar(outcome: Outcome, y: int, scale: float) -> list[str]:
    colour = next((c for name, c in _COLOURS.items() if outcome.row.startswith(name)), "#555")
    middle, length = y + BAR / 2, outcome.median * scale
    low, high = (LABEL + v * scale for v in (outcome.low, outcome.high))
    return [
        f'<text x="{LABEL - 8}" y="{y + 12}" text-anchor="end">{escape(outcome.row)}</text>',
        f'<rect x="{LABEL}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>',
        f'<line x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}" stroke="#111"/>',
        f'<text x="{max(high, LABEL + length) + 6:.1f}" y="{y + 12}">{number(outcome.median)}</text>',
    ]
