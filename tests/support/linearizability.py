"""Judges whether a history of reads and conditional writes is linearizable.

The verdict is that of a complete search: Wing & Gong, "Testing and Verifying Concurrent Objects" (1993), with G. Lowe's
memoised configurations and just-in-time order, "Testing for Linearizability" (2016), one key at a time, because
linearizability is local (Herlihy & Wing, 1990); `tests.support.sweep` has the search.

**Fast path.** Every acknowledged write returns a version that only grows, and reads return the version they saw. So in
a good history most of the order is written down in it. `_witness` puts the operations in that order and checks
the result against the same model and against real time. A witness that passes *is* a linearization, so accepting it is
sound; when there is none (an unknown deletion took effect, say, or the history is bad) the search decides. The fast
path can only say yes, never no.

**Model of a key**: present with a value and a version, or absent. Versions grow with every write, deletions included. An
unknown write that took effect has a version that nobody was told: the state then holds a lower bound, until a
read or a condition tells.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tests.support.history import FAILED, UNKNOWN, History, Kind, Operation, Outcome, Result
from tests.support.sweep import Stuck, Sweep

__all__ = [
    "FAILED",
    "UNKNOWN",
    "History",
    "Kind",
    "Operation",
    "Outcome",
    "Result",
    "State",
    "Violation",
    "apply",
    "check",
    "check_key",
    "format_violation",
]


class State(NamedTuple):
    """A key: its value (None: absent) and its version, or, not `exact`, a number that its version is above."""

    value: bytes | None
    version: int
    exact: bool

    def __str__(self) -> str:
        what = "absent" if self.value is None else f"value {self.value!r}"
        return f"{what}, version {'' if self.exact else 'above '}{self.version}"


ABSENT = State(None, 0, exact=True)


@dataclass(frozen=True, slots=True)
class Violation:
    """A key's answer that no order explains.

    `operation` is the first to return without an explanation; `states` are those the key can have had when it was
    invoked; `timeline` the operations that take part: those that overlap it, and the origins of what is known.
    """

    key: bytes
    operation: Operation
    states: tuple[State, ...]
    timeline: tuple[Operation, ...]


def check(history: Iterable[Operation]) -> list[Violation]:
    """Violations, at most one per key, in the order of their times; none means linearizable."""
    found = []
    for operations in History(list(history)).by_key().values():
        violation = check_key(operations)
        if violation is not None:
            found.append(violation)
    return sorted(found, key=lambda v: v.operation.returned or 0.0)


def check_key(operations: Sequence[Operation], *, initial: State = ABSENT) -> Violation | None:
    """The same for operations that are all of one key, which was in the `initial` state before them."""
    told = [o for o in operations if o.outcome.result is not Result.FAILED]
    told = [o for o in told if o.outcome.result is not Result.UNKNOWN or o.kind is not Kind.GET]
    if _witness(told, initial):
        return None
    return search(told, initial)


# --- the model -------------------------------------------------------------------------------------------------------


def apply(state: State, op: Operation) -> State | None:
    """The key's state after an operation that had this outcome; None when it can't have had it in this state.

    An unknown write is applied as if its condition held; if it can't hold, None (it then changed nothing).
    """
    result, found = op.outcome.result, op.outcome.version
    if result is Result.NOT_FOUND:
        return state if state.value is None and op.kind not in (Kind.PUT, Kind.CREATE) else None
    if result is Result.ALREADY_EXISTS:
        return _seen(state, found) if op.kind is Kind.CREATE and state.value is not None else None
    if result is Result.VERSION_MISMATCH:
        if op.expected_version is None or found == op.expected_version:
            return None
        if found == 0 or state.value is None:
            return state if found in (0, None) and state.value is None else None
        return _seen(state, found)
    if op.kind is Kind.GET:
        return _seen(state, found) if state.value is not None and state.value == op.outcome.value else None
    return _written(state, op)


def _seen(state: State, version: int | None) -> State | None:
    """The present state, now known to have this version."""
    if version is None or (state.exact and state.version == version):
        return state
    return State(state.value, version, exact=True) if not state.exact and version > state.version else None


def _written(state: State, op: Operation) -> State | None:
    present = state.value is not None
    if op.kind is Kind.CREATE and present:
        return None
    if op.kind in (Kind.UPDATE, Kind.DELETE) and not present:
        return None
    if op.expected_version == 0:
        if present:
            return None
    elif op.expected_version is not None:
        known = _seen(state, op.expected_version) if present else None
        if known is None:
            return None
        state = known
    value = None if op.kind is Kind.DELETE else op.value
    version = op.outcome.version
    if version is None:
        return State(value, state.version, exact=False)
    return State(value, version, exact=True) if version > state.version else None


# --- the fast path ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Segment:
    """One write and those that saw exactly it; `point` is the earliest time at which it can have taken effect."""

    write: Operation | None
    seers: list[Operation]
    point: float = float("-inf")


def _witness(operations: Sequence[Operation], initial: State) -> bool:
    """Whether the order that the versions tell is a linearization. False says nothing."""
    segments = {initial.version: _Segment(None, [])}
    versionless, unknown = [], []
    for op in operations:
        if op.outcome.result is Result.UNKNOWN:
            unknown.append(op)
        elif op.writes:
            if op.outcome.version is None or op.outcome.version in segments:
                return False
            segments[op.outcome.version] = _Segment(op, [])
    for op in operations:
        if op.outcome.result is Result.UNKNOWN or op.writes:
            continue
        if not op.outcome.version:
            versionless.append(op)
        elif op.outcome.version in segments:
            segments[op.outcome.version].seers.append(op)
        else:
            origin = _origin(op, unknown)
            if origin is None:
                return False
            segments[op.outcome.version] = _Segment(origin, [op])
    ordered = [segments[version] for version in sorted(segments)]
    return _times_hold(ordered) and _model_holds(ordered, initial, versionless)


def _origin(seer: Operation, unknown: Sequence[Operation]) -> Operation | None:
    """The one unknown write whose value was read; None when it is not clear which."""
    candidates = [o for o in unknown if o.value is not None and o.value == seer.outcome.value]
    return candidates[0] if len(candidates) == 1 else None


def _times_hold(ordered: Sequence[_Segment]) -> bool:
    """Give every segment its earliest point; whether all of it fits between invocations and returns."""
    point = float("-inf")
    for segment in ordered:
        if segment.write is not None:
            point = max(point, segment.write.invoked)
            if segment.write.returned is not None and point > segment.write.returned:
                return False
        segment.point = point
        for seer in segment.seers:
            if seer.returned is not None and segment.point > seer.returned:
                return False
            point = max(point, seer.invoked)
    return True


def _model_holds(ordered: Sequence[_Segment], initial: State, versionless: Sequence[Operation]) -> bool:
    """Whether each answer is right in its segment, and each answer without a version fits into some segment."""
    waiting = sorted(versionless, key=lambda o: o.invoked)
    state = initial
    used: set[int] = set()
    for i, segment in enumerate(ordered):
        if segment.write is not None:
            if id(segment.write) in used:
                return False
            used.add(id(segment.write))
            following = apply(state, segment.write)
            if following is None:
                return False
            state = following
        for seer in segment.seers:
            following = apply(state, seer)
            if following is None:
                return False
            state = following
        end = ordered[i + 1].point if i + 1 < len(ordered) else float("inf")
        left = []
        for j, op in enumerate(waiting):
            if op.invoked > end:
                left += waiting[j:]
                break
            if (op.returned or 0.0) < segment.point or apply(state, op) != state:
                left.append(op)
        waiting = left
    return not waiting


# --- the search ------------------------------------------------------------------------------------------------------


def search(operations: Sequence[Operation], initial: State) -> Violation | None:
    """What the complete search says."""
    stuck = Sweep(operations, initial, apply, stranded=_stranded).run()
    return None if stuck is None else _violation(operations, stuck)


def _stranded(state: State, op: Operation) -> bool:
    """Whether an operation has an older version than the state now has."""
    # As in the model, an absent key has no version, whatever an answer may say.
    version = None if op.outcome.result is Result.NOT_FOUND else op.outcome.version
    return bool(version) and state.version >= (version or 0) + (not op.writes)


def _violation(operations: Sequence[Operation], stuck: Stuck[State]) -> Violation:
    operation = operations[stuck.failing]
    states = tuple(dict.fromkeys(stuck.states))
    known = {s.version for s in states if s.exact} | {operation.outcome.version, operation.expected_version}
    values = {s.value for s in states if not s.exact} | {operation.outcome.value}
    end = operation.returned or operation.invoked
    timeline = []
    for i, other in enumerate(operations):
        origin = (other.writes and other.outcome.version in known) or (
            other.returned is None and other.value is not None and other.value in values
        )
        overlaps = (other.invoked <= end and other.returned is not None and other.returned >= operation.invoked) or (
            i in stuck.open and other.returned is None and other.kind is Kind.DELETE
        )
        if origin or overlaps or i == stuck.failing:
            timeline.append(other)
    return Violation(operation.key, operation, states, tuple(sorted(timeline, key=lambda o: o.invoked)))


# --- for people ------------------------------------------------------------------------------------------------------

_SHOWN = 24
_BAR = 32


def format_violation(violation: Violation) -> str:
    """A few lines: what is wrong, what was possible, and a timeline with the failing operation marked `>`."""
    operation = violation.operation
    lines = [
        f"key {violation.key!r} is not linearizable: {operation.whose} {operation.asks} -> {operation.outcome} fits in no order"
    ]
    lines += [f"  when it was invoked the key can have been: {state}" for state in violation.states[:4]]
    if len(violation.states) > 4:
        lines.append(f"  ... or in {len(violation.states) - 4} other states")
    shown = _nearest(violation)
    start = min(o.invoked for o in shown)
    end = max(o.returned or o.invoked for o in shown)
    lines += [_row(o, start, end, failing=o is operation) for o in shown]
    if len(shown) < len(violation.timeline):
        lines.append(f"  ... and {len(violation.timeline) - len(shown)} other operations that overlap it")
    return "\n".join(lines)


def _nearest(violation: Violation) -> list[Operation]:
    """The failing operation, acknowledged writes first of all others, in the order of their invocations."""
    by_worth = sorted(violation.timeline, key=lambda o: (o is not violation.operation, not o.writes))
    return sorted(by_worth[:_SHOWN], key=lambda o: o.invoked)


def _row(op: Operation, start: float, end: float, *, failing: bool) -> str:
    scale = (_BAR - 1) / (end - start) if end > start else 0.0
    left = int((op.invoked - start) * scale)
    right = _BAR - 1 if op.returned is None else int((op.returned - start) * scale)
    closing = ">" if op.returned is None else "|"
    body = "|" if right == left else "|" + "-" * (right - left - 1) + closing
    bar = (" " * left + body).ljust(_BAR)
    until = "never told" if op.returned is None else f"{op.returned:.6f}"
    return f"{'>' if failing else ' '} [{bar}] {op.invoked:.6f} .. {until:<12} {op.whose} {op.asks} -> {op.outcome}"
