"""A run as a picture: one HTML file that needs nothing else. Time runs downwards, one row for each line of the timeline.

On the left a lane for each pod: its colour is that of the epoch that it follows or leads, its width and strength its
role. Arrows are messages, from the row in which they are sent to that in which they arrive. On the right the words.
The lanes' names stay in sight, and a link leads to the row of the breach.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from tests.simulation.explain import headline
from tests.simulation.report import Report
from tests.simulation.timeline import Line, Mark

ROW, LANE, LEFT, HEAD = 18, 84, 78, 28
HUES = (212, 28, 140, 285, 0, 178, 52, 320)
NOBODY = {"cluster", "history", "log", "partition", "world"}  # who is all of it has no lane
_ASKED = re.compile(r"asks [^(:]*\((\d+:\d+)\)")
_REQUEST = re.compile(r"(?<=\()\d+:\d+(?=\))|(?<=request )\d+:\d+")
_RUN = re.compile(r"(.+)-r\d+$")

STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; color: #1c2733; margin: 20px; background: #fff }
h1 { font-size: 19px; margin: 0 0 6px } .bad { color: #b3161b } .good { color: #176b2c }
pre { background: #f3f5f7; padding: 8px 12px; white-space: pre-wrap; font-size: 12px }
svg text { font: 12px ui-monospace, monospace; fill: #1c2733 } svg .when { fill: #6b7785; font-size: 11px }
svg { display: block } svg .head { font-weight: 600; text-anchor: middle } .row:hover rect { fill: #fff3c4 }
svg .fault, svg .astray { fill: #b3161b } svg .heal { fill: #176b2c } svg .role { font-weight: 700 }
svg .commit { fill: #176b2c } svg .client { fill: #5c4a99 } svg .coordination { fill: #8a5a00 }
svg .operator { fill: #1f6f8b }
svg .receive { fill: #6b7785 } svg .broken { fill: #fff; font-weight: 700 }
.heads { position: sticky; top: 0; background: #fff; border-bottom: 1px solid #d5dbe1 }
svg g { scroll-margin-top: 50vh } .jump { font-weight: 600 }
.legend span { display: inline-block; margin-right: 16px }
.legend i { display: inline-block; width: 13px; height: 13px; margin-right: 5px; vertical-align: -2px }
"""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stretch of a pod's lane in which its role, epoch and being paused stay the same, by rows."""

    lane: str
    first: int
    last: int
    role: str
    epoch: int
    paused: bool


def draw(report: Report, again: str | None = None) -> str:
    """The whole document. `again`: what shows the run again, if not its own command."""
    lines = [line for line in report.lines if not line.detail]
    lanes = _lanes(lines)
    at = {name: LEFT + LANE * i + LANE // 2 for i, name in enumerate(lanes)}
    words = LEFT + LANE * len(lanes) + 16
    width = words + 8 * max((len(_words(line)) for line in lines), default=0) + 40
    height = ROW * (len(lines) + 1)
    kind = "good" if report.failure is None else "bad"
    told = headline(report, again)
    body = [
        *_rows(lines, width),
        *(_thread(at[name], height) for name in lanes),
        *(_piece(piece, at[piece.lane]) for piece in _pieces(lines)),
        *_messages(lines, at),
        *_dots(lines, at),
        *_text(lines, words),
    ]
    return "\n".join(
        [
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(told[0])}</title>',
            f"<style>{STYLE}</style>",
            f'<h1 class="{kind}">{escape(told[0])}</h1>',
            f"<pre>{_linked(told[1:], lines)}</pre>",
            _jump(lines),
            _legend(),
            f'<svg class="heads" width="{width}" height="{HEAD}" viewBox="0 0 {width} {HEAD}">',
            *(f'<text class="head" x="{at[name]}" y="{HEAD - 10}">{escape(name)}</text>' for name in lanes),
            "</svg>",
            f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}">{_DEFS}',
            *body,
            "</svg></html>",
        ]
    )


def _lane(who: str) -> str:
    """Runs of a pod share its lane, clients theirs; trouble has one."""
    found = _RUN.match(who)
    if found:
        return found[1]
    if who.startswith("client"):
        return "clients"
    return "faults" if who in ("faults", "kubelet", "scenario") else who


def _lanes(lines: Iterable[Line]) -> list[str]:
    found = {_lane(line.who) for line in lines} - NOBODY
    ends = ["faults", "coordination", "clients"]
    pods = sorted(found - set(ends))
    return [*(x for x in ends[:2] if x in found), *pods, *(x for x in ends[2:] if x in found)]


def _y(row: int) -> int:
    return ROW * row + ROW // 2


def _rows(lines: Sequence[Line], width: int) -> Iterator[str]:
    known: set[str] = set()
    for row, line in enumerate(lines):
        fill = (
            "#b3161b" if line.mark is Mark.BROKEN else "#fdeeee" if line.mark in (Mark.FAULT, Mark.ASTRAY) else "none"
        )
        name = "breach" if line.mark is Mark.BROKEN else _asked(line)
        place = f' id="{name}"' if name and name not in known else ""
        known.add(name)
        yield (
            f'<g class="row"{place}><rect x="0" y="{_y(row) - ROW // 2}" width="{width}" height="{ROW}" fill="{fill}" '
            f'pointer-events="all"/></g>'
        )


def _thread(x: int, height: int) -> str:
    return f'<line x1="{x}" y1="0" x2="{x}" y2="{height}" stroke="#d5dbe1" stroke-dasharray="2 3"/>'


def _asked(line: Line) -> str:
    """The name of the request that a client begins with this line, or ""."""
    found = _ASKED.match(line.what) if line.mark is Mark.CLIENT else None
    return found[1] if found else ""


def _linked(told: Sequence[str], lines: Sequence[Line]) -> str:
    """The headline, in which the name of a request leads to the row where it is asked."""
    known = {_asked(line) for line in lines}
    words = escape("\n".join(told))
    return _REQUEST.sub(lambda at: f'<a href="#{at[0]}">{at[0]}</a>' if at[0] in known else at[0], words)


def _jump(lines: Sequence[Line]) -> str:
    """A link to the breach, if there is one."""
    broken = next((line for line in lines if line.mark is Mark.BROKEN), None)
    if broken is None:
        return ""
    return f'<p class="jump"><a href="#breach">Go to the breach, at {broken.at:.6f} s</a></p>'


def _pieces(lines: Sequence[Line]) -> Iterator[_Piece]:
    """What each pod's lane looks like, from row to row."""
    begun: dict[str, _Piece] = {}
    for row, line in enumerate(lines):
        lane = _lane(line.who)
        now = begun.get(lane)
        if line.pauses:
            lane = _lane(line.pauses)
            now = begun.get(lane)
            after = None if now is None else (now.role, now.epoch, True)
        elif line.mark is Mark.START and line.epoch is not None:
            after = ("follower", line.epoch or 0, False)
        elif now is None:
            continue
        elif line.mark is Mark.END:
            after = None
        else:
            role = line.what.split()[1] if line.mark is Mark.ROLE else now.role
            epoch = now.epoch if line.epoch is None or now.role == "claiming" else line.epoch
            if line.mark is Mark.ROLE:
                epoch = int(line.what.split()[-1])
            after = (role, epoch, now.paused and line.mark is not Mark.HEAL)
        if now is not None and after == (now.role, now.epoch, now.paused):
            continue
        if now is not None:
            yield _Piece(lane, now.first, row, now.role, now.epoch, now.paused)
            del begun[lane]
        if after is not None:
            begun[lane] = _Piece(lane, row, row, *after)
    for piece in begun.values():
        yield _Piece(piece.lane, piece.first, len(lines), piece.role, piece.epoch, piece.paused)


def _piece(piece: _Piece, x: int) -> str:
    hue = HUES[piece.epoch % len(HUES)]
    half, light, saturation = {"leader": (15, 58, 72), "claiming": (11, 72, 60), "failed": (8, 40, 0)}.get(
        piece.role, (8, 86, 55)
    )
    top, bottom = _y(piece.first), _y(piece.last)
    title = f"{piece.role} in epoch {piece.epoch}{', paused' if piece.paused else ''}"
    shape = f'x="{x - half}" y="{top}" width="{2 * half}" height="{max(bottom - top, 3)}" rx="3"'
    drawn = f'<rect {shape} fill="hsl({hue} {saturation}% {light}%)"><title>{escape(title)}</title></rect>'
    if piece.paused:
        drawn += f'<rect {shape} fill="url(#paused)"><title>{escape(title)}</title></rect>'
    if piece.role in ("leader", "claiming"):
        drawn += f'<text class="head" x="{x}" y="{top + 13}">{piece.epoch}</text>'
    return drawn


def _messages(lines: Sequence[Line], at: dict[str, int]) -> Iterator[str]:
    arrived = {line.link: (row, line) for row, line in enumerate(lines) if line.mark is Mark.RECEIVE}
    for row, line in enumerate(lines):
        if line.mark is not Mark.SEND:
            continue
        x = at[_lane(line.who)]
        title = f"<title>{escape(f'{line.who} {line.what}')}</title>"
        if line.link in arrived:
            end, other = arrived[line.link]
            to = at[_lane(other.who)]
            yield (
                f'<line x1="{x}" y1="{_y(row)}" x2="{to}" y2="{_y(end)}" stroke="#44525f" marker-end="url(#tip)">'
                f"{title}</line>"
            )
        else:
            yield f'<path d="M{x} {_y(row)} l22 7" stroke="#b3161b" stroke-dasharray="3 2">{title}</path>'


DOTS = {
    Mark.COMMIT: "#176b2c",
    Mark.DISK: "#44525f",
    Mark.COORDINATION: "#c98500",
    Mark.OPERATOR: "#1f6f8b",
    Mark.CLIENT: "#5c4a99",
    Mark.FAULT: "#b3161b",
    Mark.ASTRAY: "#b3161b",
    Mark.HEAL: "#2d9c4d",
    Mark.START: "#1c2733",
}


def _dots(lines: Sequence[Line], at: dict[str, int]) -> Iterator[str]:
    for row, line in enumerate(lines):
        lane = _lane(line.who)
        if lane not in at:
            continue
        x, y = at[lane], _y(row)
        if line.mark is Mark.END:
            yield f'<path d="M{x - 6} {y - 6} L{x + 6} {y + 6} M{x + 6} {y - 6} L{x - 6} {y + 6}" stroke="#b3161b" stroke-width="3"/>'
        elif line.mark is Mark.BROKEN:
            yield f'<circle cx="{x}" cy="{y}" r="8" fill="#fff" stroke="#b3161b" stroke-width="4"/>'
        elif line.mark in DOTS:
            yield f'<circle cx="{x}" cy="{y}" r="3.5" fill="{DOTS[line.mark]}"/>'


def _words(line: Line) -> str:
    place = "" if line.epoch is None else f" [{line.epoch}:{'' if line.index is None else line.index}]"
    return f"{line.who}{place}: {line.what.splitlines()[0]}"


def _text(lines: Sequence[Line], x: int) -> Iterator[str]:
    shown = ""
    for row, line in enumerate(lines):
        when = f"{line.at:.6f}"
        if when != shown:
            yield f'<text class="when" x="4" y="{_y(row) + 4}">{when}</text>'
        shown = when
        yield f'<text class="{line.mark.value}" x="{x}" y="{_y(row) + 4}">{escape(_words(line))}</text>'


_DEFS = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    '<path d="M0 0 L8 4 L0 8 z" fill="#44525f"/></marker>'
    '<pattern id="paused" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="3" height="7" fill="#1c2733" fill-opacity=".45"/></pattern></defs>'
)


def _legend() -> str:
    hue = HUES[1]
    shown = [
        (f"hsl({hue} 55% 86%)", "follower"),
        (f"hsl({hue} 60% 72%)", "claiming"),
        (f"hsl({hue} 72% 58%)", "leader; colour and number: the epoch"),
        ("repeating-linear-gradient(45deg, #888 0 3px, #fff 3px 6px)", "paused"),
        ("#176b2c", "commits"),
        ("#44525f", "disk"),
        ("#c98500", "coordination"),
        ("#1f6f8b", "operator"),
        ("#5c4a99", "client"),
        ("#1c2733", "start"),
        ("#b3161b", "fault; X: the process ends; ring: the breach; dashed: a message that never arrives"),
        ("#2d9c4d", "healed: a fault ends"),
    ]
    spans = "".join(f'<span><i style="background:{colour}"></i>{escape(what)}</span>' for colour, what in shown)
    return f'<p class="legend">{spans}<br>In brackets: the epoch and the last index of that run\'s log.</p>'
