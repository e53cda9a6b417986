"""The checker of Redis groups against histories whose verdict is known, against brute force, and against our own commands."""

import random
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvresp.commands import command_of
from kvresp.meaning import plan_of
from kvresp.replies import Error, Simple
from tests.support.redis_history import NO_SUCH_KEY, UNTOLD, Command, Model, Refusal, Reply, State, check_groups

A, B, C = b"{g}a", b"{g}b", b"{g}c"
KEYS = {b"{g}": (A, B, C)}


def done(
    words: bytes, reply: Reply | object, invoked: float, returned: float | None, after: int | None = None
) -> Command:
    names = {b"a": A, b"b": B, b"c": C}
    name, *rest = words.split()
    return Command(1, b"{g}", (name, *(names.get(w, w) for w in rest)), invoked, returned, reply, after)


def test_counted_and_appended_replies_must_fit_one_order() -> None:
    history = [
        done(b"INCR c", 1, 0, 5),
        done(b"INCR c", 2, 1, 4),
        done(b"GET c", b"2", 6, 7),
        done(b"APPEND a x", 1, 0, 3),
        done(b"APPEND a y", 2, 2, 4),
        done(b"GET a", b"xy", 5, 6),
    ]
    assert check_groups(history, KEYS) == []
    assert "not linearizable" in check_groups([*history, done(b"INCR c", 2, 8, 9)], KEYS)[0]


def test_half_a_group_is_no_state() -> None:
    """MSET x x x shows all of it, or nothing."""
    history = [done(b"MSET a x b x", b"OK", 0, 5), done(b"MGET a b", (b"x", b"x"), 1, 2)]
    assert check_groups(history, KEYS) == []
    assert check_groups([history[0], done(b"MGET a b", (b"x", None), 1, 2)], KEYS)


def test_a_write_that_changes_nothing_now_may_be_needed_later() -> None:
    """SET a 1 where a is 1 already; it then undoes an append that came between."""
    history = [
        done(b"SET a 1", b"OK", 0, 1),
        done(b"SET a 1", b"OK", 2, 6),
        done(b"APPEND a 0", 2, 2, 4),
        done(b"GET a", b"1", 7, 8),
    ]
    assert check_groups(history, KEYS) == []


def test_an_untold_command_takes_effect_later_or_never_but_once() -> None:
    untold = done(b"INCR c", UNTOLD, 0, None)
    assert check_groups([untold, done(b"GET c", None, 1, 2), done(b"GET c", b"1", 3, 4)], KEYS) == []
    assert check_groups([untold, done(b"GET c", b"1", 1, 2), done(b"GET c", b"2", 3, 4)], KEYS)


def test_an_untold_rename_moves_what_an_untold_write_made() -> None:
    """Neither touches the key that is read alone; both matter to it."""
    history = [
        done(b"SET a x", UNTOLD, 0, None),
        done(b"RENAME a b", UNTOLD, 0, None),
        done(b"RENAME b c", UNTOLD, 0, None),
        done(b"GET c", b"x", 1, 2),
    ]
    assert check_groups(history, KEYS) == []


def test_commands_of_one_connection_take_effect_in_their_order() -> None:
    first, second = done(b"SET a x", b"OK", 0, 5), done(b"GET a", None, 0, 5)
    assert check_groups([first, second], KEYS) == []
    assert check_groups([first, done(b"GET a", None, 0, 5, after=0)], KEYS)


def test_a_failure_is_told_with_what_was_possible() -> None:
    text = check_groups([done(b"SET a x", b"OK", 0, 1), done(b"RENAME b c", b"OK", 2, 3)], KEYS)[0]
    assert "RENAME {g}b {g}c" in text
    assert "(b'x', None, None)" in text


COMMANDS: list[tuple[bytes, ...]] = [
    (b"GET", A), (b"MGET", A, B, C), (b"EXISTS", A, B, A), (b"STRLEN", B), (b"SET", A, b"1"), (b"SET", B, b"v", b"NX"),
    (b"SET", C, b"w", b"XX"), (b"SET", A, b"7", b"GET"), (b"SET", B, b"8", b"NX", b"GET"), (b"SETNX", C, b"n"),
    (b"GETSET", A, b"2"), (b"GETDEL", B), (b"MSET", A, b"m", B, b"m"), (b"MSETNX", B, b"q", C, b"q"),
    (b"DEL", A, C, A), (b"INCR", A), (b"DECR", B), (b"INCRBY", C, b"41"), (b"INCRBY", A, b"9223372036854775807"),
    (b"APPEND", A, b"0"), (b"APPEND", B, b"z"), (b"RENAME", A, B), (b"RENAME", C, C), (b"RENAMENX", B, C),
    (b"RENAMENX", A, A),
]  # fmt: skip


def model_reply(model: Model, state: State, words: tuple[bytes, ...]) -> tuple[State, Reply]:
    return model._commands[words[0]](state, words[1:])


def plain(said: object) -> object:
    """A reply of our commands as the model has it."""
    if isinstance(said, Error):
        return Refusal(said)
    if isinstance(said, Simple):
        return said.encode()
    return tuple(said) if isinstance(said, list) else said


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(COMMANDS), max_size=25))
def test_the_model_says_what_our_commands_mean(commands: list[tuple[bytes, ...]]) -> None:
    """Two independent implementations, of which one is compared with a real Redis elsewhere."""
    model, ours = Model((A, B, C)), dict[bytes, bytes]()
    state = model.empty
    for words in commands:
        plan = plan_of(command_of(list(words)), list(words))
        writes, said = plan.decide(ours.get)
        for key, value in writes:
            if value is None:
                ours.pop(key, None)
            else:
                ours[key] = value
        state, expected = model_reply(model, state, words)
        assert plain(said) == expected, words
        assert dict(zip((A, B, C), state, strict=True)) == {key: ours.get(key) for key in (A, B, C)}, words


def brute_force(commands: list[Command]) -> bool:
    known = [c for c in commands if c.returned is not None]
    unknown = [c for c in commands if c.returned is None]
    model = Model((A, B, C))
    for chosen in range(1 << len(unknown)):
        taken = known + [c for i, c in enumerate(unknown) if chosen >> i & 1]
        for order in permutations(taken):
            if any(
                b.returned is not None and b.returned < a.invoked for i, a in enumerate(order) for b in order[i + 1 :]
            ):
                continue
            state: State | None = model.empty
            for command in order:
                state = model.apply(state, command) if state is not None else None
            if state is not None:
                return True
    return False


@settings(max_examples=250, deadline=None)
@given(st.integers(0, 1 << 32))
def test_agrees_with_brute_force(seed: int) -> None:
    """On short runs of overlapping commands, some untold, some replies made wrong."""
    rng = random.Random(seed)
    model = Model((A, B, C))
    state, history = model.empty, list[Command]()
    for at in range(rng.randint(2, 6)):
        words = rng.choice(COMMANDS)
        after, reply = model_reply(model, state, words)
        untold = rng.random() < 0.3
        if not untold or rng.random() < 0.5:
            state = after
        if rng.random() < 0.2:
            reply = rng.choice([b"1", b"m", None, 1, 0, b"OK", NO_SUCH_KEY])
        invoked, returned = at - rng.random() * 2.5, at + rng.random() * 2.5
        history.append(Command(1, b"{g}", words, invoked, None if untold else returned, UNTOLD if untold else reply))
    assert (check_groups(history, KEYS) == []) == brute_force(history)


@pytest.mark.parametrize("untold", [0.0, 0.03, 0.2, 0.5])
def test_a_long_history_is_judged_quickly(untold: float) -> None:
    """Hundreds of commands, five at a time, some of which nobody heard of again."""
    rng = random.Random(5)
    model = Model((A, B, C))
    state, history = model.empty, list[Command]()
    for at in range(400):
        words = rng.choice(COMMANDS)
        state, reply = model_reply(model, state, words)
        lost = rng.random() < untold
        history.append(
            Command(
                1,
                b"{g}",
                words,
                at - rng.random() * 2.5,
                None if lost else at + rng.random() * 2.5,
                UNTOLD if lost else reply,
            )
        )
    assert check_groups(history, KEYS) == []
