"""The checker against histories whose verdict is known, and against brute force."""

import random
import time
from itertools import permutations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support import linearizability
from tests.support.history import FAILED, UNKNOWN, History, Kind, Operation, Outcome, Result, lost_writes
from tests.support.history import version_violations as versions_wrong
from tests.support.linearizability import ABSENT, State, apply, check, check_key, format_violation

KEY = b"k"


def op(
    client: int,
    kind: str,
    invoked: float,
    returned: float | None,
    outcome: Outcome,
    value: bytes | None = None,
    expected: int | None = None,
) -> Operation:
    return Operation(client, KEY, Kind(kind), value, expected, invoked, returned, outcome)


def ok(version: int, value: bytes | None = None) -> Outcome:
    return Outcome(Result.OK, version, value)


def found(result: str, version: int | None = None) -> Outcome:
    return Outcome(Result(result), version)


def brute_force(operations: list[Operation]) -> bool:
    """Every choice of unknown operations, every order: True when one of them fits."""
    told = [o for o in operations if o.outcome.result is not Result.FAILED]
    known = [o for o in told if o.returned is not None]
    unknown = [o for o in told if o.returned is None]
    for chosen in range(1 << len(unknown)):
        taken = known + [o for i, o in enumerate(unknown) if chosen >> i & 1]
        for order in permutations(taken):
            late = any(
                b.returned is not None and b.returned < a.invoked for i, a in enumerate(order) for b in order[i + 1 :]
            )
            if late:
                continue
            state = ABSENT
            for o in order:
                following = apply(state, o)
                if following is None:
                    break
                state = following
            else:
                return True
    return False


GOOD: dict[str, list[Operation]] = {
    "nothing": [],
    "a write is read": [op(1, "put", 0, 1, ok(5), b"a"), op(2, "get", 2, 3, ok(5, b"a"))],
    "overlapping read sees the old state": [
        op(1, "put", 0, 9, ok(5), b"a"),
        op(2, "get", 1, 2, found("not_found")),
        op(2, "get", 3, 4, ok(5, b"a")),
    ],
    "unknown write takes effect late": [
        op(1, "put", 0, None, UNKNOWN, b"u"),
        op(2, "put", 1, 2, ok(5), b"a"),
        op(2, "get", 3, 4, ok(5, b"a")),
        op(2, "get", 5, 6, ok(7, b"u")),
    ],
    "unknown deletion explains an absence": [
        op(1, "put", 0, 1, ok(5), b"a"),
        op(2, "delete", 2, None, UNKNOWN),
        op(1, "get", 3, 4, ok(5, b"a")),
        op(1, "get", 5, 6, found("not_found")),
        op(1, "create", 7, 8, ok(9), b"b"),
    ],
    "failed write never happened": [op(1, "put", 0, 1, FAILED, b"x"), op(2, "get", 2, 3, found("not_found"))],
    "refused conditions tell the truth": [
        op(1, "create", 0, 1, ok(5), b"a"),
        op(2, "create", 2, 3, found("already_exists", 5), b"b"),
        op(2, "put", 4, 5, found("version_mismatch", 5), b"b", 4),
        op(2, "delete", 6, 7, ok(8), None, 5),
        op(2, "update", 8, 9, found("not_found"), b"c"),
        op(2, "put", 10, 11, found("version_mismatch", 0), b"c", 8),
        op(2, "put", 12, 13, ok(9), b"c", 0),
    ],
    "condition on an unknown write's version": [
        op(1, "put", 0, None, UNKNOWN, b"u"),
        op(2, "put", 1, 2, ok(7), b"v", 6),
        op(2, "get", 3, 4, ok(7, b"v")),
    ],
}

BAD: dict[str, list[Operation]] = {
    "stale read": [
        op(1, "put", 0, 1, ok(5), b"a"),
        op(1, "put", 2, 3, ok(6), b"b"),
        op(2, "get", 4, 5, ok(5, b"a")),
    ],
    "lost write": [op(1, "put", 0, 1, ok(5), b"a"), op(2, "get", 2, 3, found("not_found"))],
    "reads go back": [
        op(1, "put", 0, None, UNKNOWN, b"a"),
        op(2, "get", 1, 2, ok(5, b"a")),
        op(2, "get", 3, 4, found("not_found")),
    ],
    "failed write is read": [op(1, "put", 0, 1, FAILED, b"x"), op(2, "get", 2, 3, ok(5, b"x"))],
    "retry applied twice (rule 10)": [
        op(1, "put", 0, None, UNKNOWN, b"1"),
        op(2, "get", 1, 2, ok(5, b"1")),
        op(2, "put", 3, 4, ok(6), b"2"),
        op(2, "get", 5, 6, ok(6, b"2")),
        op(2, "get", 7, 8, ok(7, b"1")),
    ],
    "two creations": [op(1, "create", 0, 9, ok(5), b"a"), op(2, "create", 0, 9, ok(6), b"b")],
    "two writes on one condition": [
        op(1, "put", 0, 1, ok(5), b"a"),
        op(1, "put", 2, 9, ok(6), b"b", 5),
        op(2, "put", 2, 9, ok(7), b"c", 5),
    ],
    "versions against real time": [op(1, "put", 0, 1, ok(6), b"a"), op(2, "put", 2, 3, ok(5), b"b")],
    "mismatch with what was expected": [
        op(1, "put", 0, 1, ok(5), b"a"),
        op(2, "put", 2, 3, found("version_mismatch", 5), b"b", 5),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_accepts(name: str) -> None:
    assert check_key(GOOD[name]) is None
    assert brute_force(GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_rejects(name: str) -> None:
    assert check_key(BAD[name]) is not None
    assert not brute_force(BAD[name])


def test_violation_reads_as_a_short_timeline() -> None:
    (violation,) = check(BAD["stale read"])

    text = format_violation(violation)

    assert "client 2 get -> ok version 5 value b'a' fits in no order" in text
    assert "can have been: value b'b', version 6" in text
    assert len(text.splitlines()) == 5
    assert text.splitlines()[-1].startswith(">")


def test_violation_of_a_crowded_key_stays_short() -> None:
    history = [op(c, "get", 0, 100 + c, found("not_found")) for c in range(200)]
    history += [op(900, "put", 1, 2, ok(3), b"a"), op(901, "get", 3, 4, found("not_found"))]

    (violation,) = check(history)

    assert len(format_violation(violation).splitlines()) <= 30


def test_initial_state_is_given() -> None:
    read = op(1, "get", 0, 1, ok(5, b"a"))
    assert check_key([read]) is not None
    assert check_key([read], initial=State(b"a", 5, exact=True)) is None


def test_history_refuses_a_return_before_the_invocation() -> None:
    with pytest.raises(ValueError, match="give a later time"):
        History().record(1, KEY, "get", invoked=2.0, returned=1.0, outcome=ok(1, b"a"))


def test_versions_that_go_back_or_repeat_are_named() -> None:
    assert "went back" in versions_wrong(BAD["versions against real time"])[0]
    twice = [op(1, "put", 0, 9, ok(5), b"a"), op(2, "put", 0, 9, ok(5), b"b")]
    assert "given to two writes" in versions_wrong(twice)[0]
    assert not any(versions_wrong(history) for history in GOOD.values())


def test_lost_acknowledged_writes_are_named() -> None:
    history = [op(1, "put", 0, 1, ok(5), b"a"), op(1, "put", 2, 3, ok(7), b"b")]
    assert not lost_writes(history, {KEY: 7})
    assert not lost_writes(history, {KEY: 8})
    assert "version 5 is there" in lost_writes(history, {KEY: 5})[0]
    assert "nothing is there" in lost_writes(history, {})[0]
    assert not lost_writes([*history, op(2, "delete", 4, None, UNKNOWN)], {})


# --- generated histories ---------------------------------------------------------------------------------------------


def run_sequentially(
    rng: random.Random,
    length: int,
    *,
    clients: int = 4,
    unknowns: float = 0.15,
    overlap: float = 3.0,
    first_version: int = 1,
) -> list[Operation]:
    """A real run, one operation after the other, with invocations and returns spread around each point in time."""
    state, version = ABSENT, first_version
    history: list[Operation] = []
    free = [0.0] * clients
    for point in range(1, length + 1):
        client = min(range(clients), key=lambda c: (free[c] >= point, rng.random()))
        invoked = max(free[client] + 1e-3, point - rng.random() * overlap)
        if invoked > point:
            continue
        kind = rng.choice([Kind.GET, Kind.GET, Kind.PUT, Kind.PUT, Kind.CREATE, Kind.UPDATE, Kind.DELETE])
        value = None if kind in (Kind.GET, Kind.DELETE) else rng.choice([b"v%d" % point, b"same"])
        expected = None
        if kind in (Kind.PUT, Kind.UPDATE, Kind.DELETE) and rng.random() < 0.4:
            expected = rng.choice([0, state.version, max(0, state.version - 1)])
        version += rng.randint(1, 3)
        outcome, state = answer(state, kind, value, expected, version)
        returned: float | None = point + rng.random() * overlap
        free[client] = returned or 0.0
        if kind is not Kind.GET and rng.random() < unknowns:
            outcome, returned = UNKNOWN, None
        history.append(Operation(client, KEY, kind, value, expected, invoked, returned, outcome))
    return history


def answer(state: State, kind: Kind, value: bytes | None, expected: int | None, version: int) -> tuple[Outcome, State]:
    """What a correct server says, and the state it then has."""
    present = state.value is not None
    if kind is Kind.GET:
        return (ok(state.version, state.value) if present else found("not_found")), state
    if kind is Kind.CREATE and present:
        return found("already_exists", state.version), state
    if kind in (Kind.UPDATE, Kind.DELETE) and not present:
        return found("not_found"), state
    if expected is not None and expected != (state.version if present else 0):
        return found("version_mismatch", state.version if present else 0), state
    return ok(version), State(None if kind is Kind.DELETE else value, version, exact=True)


def mutated(rng: random.Random, history: list[Operation]) -> list[Operation]:
    """The history with one answer changed."""
    told = [i for i, o in enumerate(history) if o.returned is not None]
    if not told:
        return history
    i = rng.choice(told)
    o = history[i]
    others = [p.outcome for p in history if p.kind is o.kind and p.returned is not None]
    lie = rng.choice([*others, FAILED, found("not_found"), Outcome(o.outcome.result, rng.randint(1, 30), b"same")])
    changed = list(history)
    changed[i] = Operation(o.client, o.key, o.kind, o.value, o.expected_version, o.invoked, o.returned, lie)
    return changed


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60))
def test_accepts_every_real_run_with_random_overlap(seed: int, length: int) -> None:
    history = run_sequentially(random.Random(seed), length)
    assert check(history) == []
    assert versions_wrong(history) == []


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 7), st.booleans())
@example(44431, 7, False)  # a "not found" that tells a version
def test_agrees_with_brute_force_on_mutated_runs(seed: int, length: int, fast: bool) -> None:
    rng = random.Random(seed)
    history = mutated(rng, run_sequentially(rng, length))
    verdict = check_key(history) is None if fast else linearizability.search(history_told(history), ABSENT) is None
    assert verdict == brute_force(history)


def history_told(history: list[Operation]) -> list[Operation]:
    return [
        o
        for o in history
        if o.outcome.result is not Result.FAILED and not (o.outcome.result is Result.UNKNOWN and o.kind is Kind.GET)
    ]


def contended(rng: random.Random, operations: int, keys: int) -> list[Operation]:
    history: list[Operation] = []
    for k in range(keys):
        first = rng.randrange(1000) * 10**6
        run = run_sequentially(rng, operations // keys, clients=8, unknowns=0.01, first_version=first)
        history += [
            Operation(o.client, b"key%d" % k, o.kind, o.value, o.expected_version, o.invoked, o.returned, o.outcome)
            for o in run
        ]
    return history


def test_checks_tens_of_thousands_of_contended_operations_in_seconds() -> None:
    history = contended(random.Random(1), 50_000, 64)
    assert len(history) > 40_000

    started = time.process_time()
    assert check(history) == []
    took = time.process_time() - started
    print(f"{len(history)} operations on 64 keys checked in {took:.2f} s")
    assert took < 20
