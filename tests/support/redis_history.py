"""What Redis clients did to groups of keys, and whether one order explains all of their replies.

A group is some keys of one slot; its commands are atomic, over several keys, too. So the object that must be linearizable is
the group, and its model a small Redis of a few keys: independent of the code that it judges. Replies have no versions; what is
read back, counted and appended tells enough.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.support.history import whose
from tests.support.sweep import Sweep


class Refusal(str):
    """A reply that is an error."""

    __slots__ = ()


Reply = bytes | int | None | tuple[bytes | None, ...] | Refusal
State = tuple[bytes | None, ...]
"""The values of a group's keys, in the order in which the group has them."""

UNTOLD: Final = object()
"""The outcome of a command whose client never heard: it may take effect at any later time, or never."""

NOT_AN_INTEGER = Refusal("ERR value is not an integer or out of range")
OVERFLOW = Refusal("ERR increment or decrement would overflow")
NO_SUCH_KEY = Refusal("ERR no such key")
ANSWERS = frozenset({NOT_AN_INTEGER, OVERFLOW, NO_SUCH_KEY})
"""Errors that say what was there; any other says that nothing was done, or that nobody knows."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command of one client. `after`: the number, in the history, of the one before it on its connection.

    `request`: the name of the request that it is part of, if that has one.
    """

    client: int
    group: bytes
    words: tuple[bytes, ...]
    invoked: float
    returned: float | None
    reply: Reply | object
    after: int | None = None
    request: str = ""

    def __str__(self) -> str:
        until = "never told" if self.returned is None else f"{self.returned:.6f}"
        asked = b" ".join(self.words).decode("latin-1")
        said = "?" if self.reply is UNTOLD else repr(self.reply)
        return f"{self.invoked:.6f} .. {until:<12} {whose(self.client, self.request)} {asked} -> {said}"


@dataclass
class RedisHistory:
    """All commands that took effect, or may have."""

    commands: list[Command] = field(default_factory=list)

    def record(self, command: Command) -> int:
        """Add one; gives its number."""
        self.commands.append(command)
        return len(self.commands) - 1


def check_groups(history: Sequence[Command], keys: Mapping[bytes, tuple[bytes, ...]]) -> list[str]:
    """What no order explains, at most one a group, for people. `keys` of each group."""
    found = []
    for group, names in keys.items():
        numbers = [i for i, c in enumerate(history) if c.group == group]
        place = {number: at for at, number in enumerate(numbers)}
        commands = [history[i] for i in numbers]
        after = {place[i]: place[b] for i in numbers if (b := history[i].after) is not None and b in place}
        model = Model(names)
        stuck = Sweep(commands, model.empty, model.apply, after=after, touches=touches(names), idle=idle).run()
        if stuck is not None:
            found.append(_told(group, commands, stuck.failing, stuck.states, stuck.open))
    return found


def _told(
    group: bytes, commands: Sequence[Command], failing: int, states: Sequence[State], open_: frozenset[int]
) -> str:
    failed = commands[failing]
    assert failed.returned is not None
    lines = [f"group {group!r} is not linearizable: {failed} fits in no order"]
    lines += [f"  when it was invoked the group can have been: {state}" for state in dict.fromkeys(states[:6])]
    near = [
        i
        for i, c in enumerate(commands)
        if i in open_ or (c.returned is not None and failed.invoked <= c.returned and c.invoked <= failed.returned)
    ]
    before = [i for i, c in enumerate(commands) if c.returned is not None and c.returned < failed.invoked][-8:]
    lines += [f"{'>' if i == failing else ' '} {commands[i]}" for i in sorted({*before, *near})]
    return "\n".join(lines)


# --- the model -------------------------------------------------------------------------------------------------------

_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1
READS = frozenset({b"GET", b"MGET", b"EXISTS", b"STRLEN"})
_NOTHING = {b"SETNX": 0, b"MSETNX": 0, b"RENAMENX": 0, b"DEL": 0, b"GETDEL": None}
Words = tuple[bytes, ...]
Done = tuple[State, Reply]


def idle(command: Command) -> bool:
    """Whether a command with this reply changed nothing."""
    name, reply = command.words[0], command.reply
    return name in READS or isinstance(reply, Refusal) or (name in _NOTHING and reply == _NOTHING[name])


def touches(keys: tuple[bytes, ...]) -> Callable[[Command], frozenset[bytes]]:
    """What tells the keys that a command reads or writes."""
    known = frozenset(keys)
    return lambda command: known.intersection(command.words[1:])


class Model:
    """A small Redis of the keys of one group."""

    def __init__(self, keys: tuple[bytes, ...]) -> None:
        self._place = {key: i for i, key in enumerate(keys)}
        self.empty: State = (None,) * len(keys)
        self._commands: dict[bytes, Callable[[State, Words], Done]] = {
            b"GET": lambda s, w: (s, self._at(s, w[0])),
            b"MGET": lambda s, w: (s, tuple(self._at(s, key) for key in w)),
            b"EXISTS": lambda s, w: (s, sum(self._at(s, key) is not None for key in w)),
            b"STRLEN": lambda s, w: (s, len(self._at(s, w[0]) or b"")),
            b"SET": self._set,
            b"SETNX": lambda s, w: (s, 0) if self._at(s, w[0]) is not None else (self._with(s, w), 1),
            b"GETSET": lambda s, w: (self._with(s, w), self._at(s, w[0])),
            b"GETDEL": lambda s, w: (self._without(s, w), self._at(s, w[0])),
            b"MSET": lambda s, w: (self._with(s, w), b"OK"),
            b"MSETNX": self._msetnx,
            b"DEL": lambda s, w: (self._without(s, w), sum(self._at(s, key) is not None for key in set(w))),
            b"INCR": lambda s, w: self._add(s, w[0], 1),
            b"DECR": lambda s, w: self._add(s, w[0], -1),
            b"INCRBY": lambda s, w: self._add(s, w[0], int(w[1])),
            b"APPEND": self._append,
            b"RENAME": lambda s, w: self._rename(s, w[0], w[1]),
            b"RENAMENX": self._renamenx,
        }

    def apply(self, state: State, command: Command) -> State | None:
        """The state after a command that had this reply; None when it can't have had it in this state."""
        name, *words = command.words
        after, reply = self._commands[name](state, tuple(words))
        return after if command.reply is UNTOLD or reply == command.reply else None

    def _at(self, state: State, key: bytes) -> bytes | None:
        return state[self._place[key]]

    def _with(self, state: State, words: Words) -> State:
        """Keys and their values in turn."""
        values = list(state)
        for key, value in zip(words[::2], words[1::2], strict=True):
            values[self._place[key]] = value
        return tuple(values)

    def _without(self, state: State, keys: Words) -> State:
        return tuple(None if i in {self._place[key] for key in keys} else value for i, value in enumerate(state))

    def _set(self, state: State, words: Words) -> Done:
        key, value, *options = words
        here = self._at(state, key)
        told = here if b"GET" in options else b"OK"
        if (b"NX" in options and here is not None) or (b"XX" in options and here is None):
            return state, here if b"GET" in options else None
        return self._with(state, (key, value)), told

    def _msetnx(self, state: State, words: Words) -> Done:
        if any(self._at(state, key) is not None for key in words[::2]):
            return state, 0
        return self._with(state, words), 1

    def _add(self, state: State, key: bytes, by: int) -> Done:
        here = self._at(state, key)
        if here is not None and (not _INTEGER.fullmatch(here) or not _LEAST <= int(here) <= _MOST):
            return state, NOT_AN_INTEGER
        total = int(here or b"0") + by
        if not _LEAST <= total <= _MOST:
            return state, OVERFLOW
        return self._with(state, (key, b"%d" % total)), total

    def _append(self, state: State, words: Words) -> Done:
        longer = (self._at(state, words[0]) or b"") + words[1]
        return self._with(state, (words[0], longer)), len(longer)

    def _rename(self, state: State, key: bytes, new: bytes) -> Done:
        here = self._at(state, key)
        if here is None:
            return state, NO_SUCH_KEY
        return self._with(self._without(state, (key,)), (new, here)), b"OK"

    def _renamenx(self, state: State, words: Words) -> Done:
        key, new = words
        if self._at(state, key) is not None and self._at(state, new) is not None:
            return state, 0
        after, reply = self._rename(state, key, new)
        return after, 1 if reply == b"OK" else reply
