"""What commands do to keys: pure functions from arguments and values to writes and a reply, exactly as Redis has it.

`plan_of` reads a command's arguments and says which keys it concerns; the plan's `decide` is then evaluated by whoever
can read those keys and apply the writes atomically.

    plan = plan_of(command_of(args), args)     # raises CommandError
    writes, reply = plan.decide(values.get)    # writes: [(key, value or None to delete it)]
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from kvresp import errors
from kvresp.commands import Command
from kvresp.errors import CommandError
from kvresp.limits import MAX_KEY_BYTES, MAX_REPLY_BYTES, MAX_VALUE_BYTES, MAX_WRITTEN_BYTES
from kvresp.replies import SIMPLE_OK, Error, Reply, Simple

MAX_KEYS: Final = 10_000  # of one command
_MIN, _MAX = -(1 << 63), (1 << 63) - 1

Read = Callable[[bytes], bytes | None]
"""A key's value, None: it doesn't exist."""
Write = tuple[bytes, bytes | None]
"""A key and its new value, None: it is deleted. Of two writes to one key the later counts."""
Decision = tuple[Sequence[Write], Reply]
Decide = Callable[[Read], Decision]


@dataclass(frozen=True, slots=True)
class Plan:
    """A command understood: `decide` reads `keys` and nothing else, and writes only if `writes`.

    `size` is of the keys and values that its arguments carry, in bytes.
    """

    keys: Sequence[bytes]
    decide: Decide
    writes: bool
    size: int


def plan_of(command: Command, args: Sequence[bytes]) -> Plan:
    """The plan of a command that has keys. Raises CommandError for arguments that make no sense; nothing is done then."""
    keys = command.keys(args)
    if len(keys) > MAX_KEYS:
        raise CommandError(f"ERR {len(keys)} keys in one command; at most {MAX_KEYS} are possible. Send several")
    decide = _PLANNERS[command.name](args)
    return Plan(keys, decide, command.writes, sum(map(len, args)))


# --- arguments -------------------------------------------------------------------------------------------------------


def parse_integer(text: bytes) -> int | None:
    """A signed 64-bit number as Redis accepts it: no plus, no spaces, no leading zeros; None for anything else."""
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit() or len(digits) > 19 or (digits[:1] == b"0" and text != b"0"):
        return None
    number = int(text)
    return number if _MIN <= number <= _MAX else None


def integer_argument(text: bytes) -> int:
    """The number, or CommandError."""
    number = parse_integer(text)
    if number is None:
        raise CommandError(errors.NOT_AN_INTEGER)
    return number


def storable(key: bytes) -> bytes:
    """The key, or CommandError if the store can't hold it."""
    if not key:
        raise CommandError(errors.EMPTY_KEY)
    if len(key) > MAX_KEY_BYTES:
        raise CommandError(errors.key_too_long(len(key)))
    return key


# --- one key ---------------------------------------------------------------------------------------------------------


def _get(args: Sequence[bytes]) -> Decide:
    key = args[1]
    return lambda read: ((), read(key))


@dataclass(slots=True)
class _SetOptions:
    """What stands behind SET's value."""

    only_new: bool = False
    only_old: bool = False
    get: bool = False
    expected: bytes | None = None
    expiry: bytes = b""  # the option's name
    keep: bool = False

    @property
    def conditions(self) -> int:
        return self.only_new + self.only_old + (self.expected is not None)


def _set_options(args: Sequence[bytes]) -> _SetOptions:
    options, rest = _SetOptions(), list(args[3:])
    while rest:
        word = rest.pop(0).upper()
        if word == b"NX":
            options.only_new = True
        elif word == b"XX":
            options.only_old = True
        elif word == b"GET":
            options.get = True
        elif word == b"IFEQ" and rest:
            options.expected = rest.pop(0)
        elif word == b"KEEPTTL" and not options.expiry:
            options.keep = True
        elif word in (b"EX", b"PX", b"EXAT", b"PXAT") and rest and not options.expiry and not options.keep:
            options.expiry = word
            _expire_time(rest.pop(0), "set")
        else:
            raise CommandError(errors.SYNTAX)
        if options.conditions > 1:
            raise CommandError(errors.SYNTAX)
    return options


def _expire_time(text: bytes, command: str) -> None:
    if integer_argument(text) <= 0:
        raise CommandError(f"ERR invalid expire time in '{command}' command")


def _set(args: Sequence[bytes]) -> Decide:
    options, key, value = _set_options(args), storable(args[1]), args[2]
    if options.expiry:
        raise CommandError(errors.no_expiry(f"SET with {options.expiry.decode()}"))
    write = ((key, value),)

    def decide(read: Read) -> Decision:
        if not options.conditions and not options.get:
            return write, SIMPLE_OK
        old = read(key)
        if options.expected is not None:
            done = old == options.expected
        else:
            done = old is None if options.only_new else old is not None or not options.only_old
        reply = old if options.get else SIMPLE_OK if done else None
        return write if done else (), reply

    return decide


def _setnx(args: Sequence[bytes]) -> Decide:
    key, value = storable(args[1]), args[2]
    return lambda read: ((), 0) if read(key) is not None else (((key, value),), 1)


def _getset(args: Sequence[bytes]) -> Decide:
    key, value = storable(args[1]), args[2]
    return lambda read: (((key, value),), read(key))


def _getdel(args: Sequence[bytes]) -> Decide:
    key = args[1]

    def decide(read: Read) -> Decision:
        old = read(key)
        return () if old is None else ((key, None),), old

    return decide


def _strlen(args: Sequence[bytes]) -> Decide:
    key = args[1]
    return lambda read: ((), len(read(key) or b""))


def _append(args: Sequence[bytes]) -> Decide:
    key, more = storable(args[1]), args[2]

    def decide(read: Read) -> Decision:
        value = (read(key) or b"") + more
        if len(value) > MAX_VALUE_BYTES:
            return (), Error(errors.TOO_LONG)
        return ((key, value),), len(value)

    return decide


def _getrange(args: Sequence[bytes]) -> Decide:
    key, first, last = args[1], integer_argument(args[2]), integer_argument(args[3])

    def decide(read: Read) -> Decision:
        value = read(key) or b""
        if first < 0 and last < 0 and first > last:
            return (), b""
        start = max(first + len(value), 0) if first < 0 else first
        end = max(last + len(value), 0) if last < 0 else last
        return (), value[start : end + 1]

    return decide


def _setrange(args: Sequence[bytes]) -> Decide:
    key, offset, piece = storable(args[1]), integer_argument(args[2]), args[3]
    if offset < 0:
        raise CommandError(errors.OFFSET_OUT_OF_RANGE)

    def decide(read: Read) -> Decision:
        old = read(key) or b""
        if not piece:
            return (), len(old)
        if offset + len(piece) > MAX_VALUE_BYTES:
            return (), Error(errors.TOO_LONG)
        value = old[:offset].ljust(offset, b"\0") + piece + old[offset + len(piece) :]
        return ((key, value),), len(value)

    return decide


def _add(key: bytes, by: int) -> Decide:
    def decide(read: Read) -> Decision:
        old = read(key)
        number = 0 if old is None else parse_integer(old)
        if number is None:
            return (), Error(errors.NOT_AN_INTEGER)
        if not _MIN <= number + by <= _MAX:
            return (), Error(errors.OVERFLOW)
        return ((key, b"%d" % (number + by)),), number + by

    return decide


def _decrby(args: Sequence[bytes]) -> Decide:
    by = integer_argument(args[2])
    if by == _MIN:
        raise CommandError(errors.DECREMENT_OVERFLOW)
    return _add(storable(args[1]), -by)


def _type(args: Sequence[bytes]) -> Decide:
    key = args[1]
    return lambda read: ((), Simple("none" if read(key) is None else "string"))


def _ttl(args: Sequence[bytes]) -> Decide:
    key = args[1]
    return lambda read: ((), -2 if read(key) is None else -1)


def _persist(args: Sequence[bytes]) -> Decide:  # noqa: ARG001 - a planner's signature
    return lambda _: ((), 0)


def _no_expiry(args: Sequence[bytes]) -> Decide:
    name = args[0].decode().upper()
    if name in ("SETEX", "PSETEX"):
        _expire_time(args[2], name.lower())
    else:
        integer_argument(args[2])
    raise CommandError(errors.no_expiry(name))


# --- several keys ----------------------------------------------------------------------------------------------------


def _mget(args: Sequence[bytes]) -> Decide:
    keys = args[1:]

    def decide(read: Read) -> Decision:
        values: list[bytes | None] = []
        room = MAX_REPLY_BYTES
        for key in keys:
            value = read(key)
            room -= len(value or b"")
            if room < 0:
                return (), Error(f"ERR the values are beyond {MAX_REPLY_BYTES} bytes; ask for fewer keys at once")
            values.append(value)
        return (), values

    return decide


def _pairs(args: Sequence[bytes], name: str) -> list[Write]:
    if len(args) % 2 == 0:
        raise CommandError(errors.wrong_number(name))
    if sum(map(len, args)) > MAX_WRITTEN_BYTES:
        raise CommandError(f"ERR keys and values are beyond {MAX_WRITTEN_BYTES} bytes; set fewer at once")
    return [(storable(args[i]), args[i + 1]) for i in range(1, len(args), 2)]


def _mset(args: Sequence[bytes]) -> Decide:
    pairs = _pairs(args, "mset")
    return lambda _: (pairs, SIMPLE_OK)


def _msetnx(args: Sequence[bytes]) -> Decide:
    pairs = _pairs(args, "msetnx")
    return lambda read: ((), 0) if any(read(key) is not None for key, _ in pairs) else (pairs, 1)


def _del(args: Sequence[bytes]) -> Decide:
    keys = tuple(dict.fromkeys(args[1:]))

    def decide(read: Read) -> Decision:
        there = [(key, None) for key in keys if read(key) is not None]
        return there, len(there)

    return decide


def _exists(args: Sequence[bytes]) -> Decide:
    keys = args[1:]
    return lambda read: ((), sum(read(key) is not None for key in keys))


def _rename(args: Sequence[bytes]) -> Decide:
    old, new = args[1], storable(args[2])

    def decide(read: Read) -> Decision:
        value = read(old)
        if value is None:
            return (), Error(errors.NO_SUCH_KEY)
        return () if old == new else ((old, None), (new, value)), SIMPLE_OK

    return decide


def _renamenx(args: Sequence[bytes]) -> Decide:
    old, new = args[1], storable(args[2])

    def decide(read: Read) -> Decision:
        value = read(old)
        if value is None:
            return (), Error(errors.NO_SUCH_KEY)
        return ((), 0) if read(new) is not None else (((old, None), (new, value)), 1)

    return decide


_PLANNERS: Final[dict[str, Callable[[Sequence[bytes]], Decide]]] = {
    "append": _append,
    "decr": lambda args: _add(storable(args[1]), -1),
    "decrby": _decrby,
    "del": _del,
    "exists": _exists,
    "expire": _no_expiry,
    "expireat": _no_expiry,
    "expiretime": _ttl,
    "get": _get,
    "getdel": _getdel,
    "getrange": _getrange,
    "getset": _getset,
    "incr": lambda args: _add(storable(args[1]), 1),
    "incrby": lambda args: _add(storable(args[1]), integer_argument(args[2])),
    "mget": _mget,
    "mset": _mset,
    "msetnx": _msetnx,
    "persist": _persist,
    "pexpire": _no_expiry,
    "pexpireat": _no_expiry,
    "pexpiretime": _ttl,
    "psetex": _no_expiry,
    "pttl": _ttl,
    "rename": _rename,
    "renamenx": _renamenx,
    "set": _set,
    "setex": _no_expiry,
    "setnx": _setnx,
    "setrange": _setrange,
    "strlen": _strlen,
    "substr": _getrange,
    "touch": _exists,
    "ttl": _ttl,
    "type": _type,
    "unlink": _del,
}
