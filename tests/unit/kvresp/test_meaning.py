"""What commands do to keys: a table of store, command, reply and store afterwards."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvresp import errors
from kvresp.commands import COMMANDS, command_of
from kvresp.errors import CommandError
from kvresp.limits import MAX_KEY_BYTES, MAX_REPLY_BYTES, MAX_VALUE_BYTES, MAX_WRITTEN_BYTES
from kvresp.meaning import MAX_KEYS, parse_integer, plan_of
from kvresp.parser import split_line
from kvresp.replies import Error, Reply, Simple

MAX, MIN = (1 << 63) - 1, -(1 << 63)
OK = Simple("OK")


class Keys(dict[bytes, bytes]):
    """A store of one machine."""

    def do(self, *args: bytes) -> Reply:
        """The command's reply; an error that comes before anything is done, too."""
        try:
            plan = plan_of(command_of(args), args)
        except CommandError as e:
            return Error(e)
        read: list[bytes] = []

        def get(key: bytes) -> bytes | None:
            read.append(key)
            return self.get(key)

        writes, reply = plan.decide(get)
        assert {*read, *(k for k, _ in writes)} <= set(plan.keys)
        assert plan.writes or not writes
        for key, value in writes:
            if value is None:
                self.pop(key, None)
            else:
                self[key] = value
        return reply


def store(text: str) -> Keys:
    """`a=1 b=2`."""
    return Keys(item.encode().split(b"=", 1) for item in text.split())


@pytest.mark.parametrize(
    ("before", "command", "reply", "after"),
    [
        ("", "GET a", None, ""),
        ("a=1", "get a", b"1", "a=1"),
        ("", "SET a 1", OK, "a=1"),
        ("a=1", "SET a 2 NX", None, "a=1"),
        ("", "SET a 2 nx", OK, "a=2"),
        ("", "SET a 2 XX", None, ""),
        ("a=1", "SET a 2 XX", OK, "a=2"),
        ("a=1", "SET a 2 GET", b"1", "a=2"),
        ("", "SET a 2 GET", None, "a=2"),
        ("a=1", "SET a 2 NX GET", b"1", "a=1"),
        ("", "SET a 2 NX GET", None, "a=2"),
        ("a=1", "SET a 2 XX GET", b"1", "a=2"),
        ("a=1", "SET a 2 IFEQ 1", OK, "a=2"),
        ("a=1", "SET a 2 IFEQ 0", None, "a=1"),
        ("a=1", "SET a 2 IFEQ 0 GET", b"1", "a=1"),
        ("", "SET a 2 IFEQ ''", None, ""),
        ("a=1", "SET a 2 KEEPTTL", OK, "a=2"),
        ("a=1", "SET a 2 NX XX", Error("ERR syntax error"), "a=1"),
        ("a=1", "SET a 2 NX IFEQ 1", Error("ERR syntax error"), "a=1"),
        ("a=1", "SET a 2 IFEQ", Error("ERR syntax error"), "a=1"),
        ("a=1", "SET a 2 WHAT", Error("ERR syntax error"), "a=1"),
        ("a=1", "SET a 2 EX", Error("ERR syntax error"), "a=1"),
        ("a=1", "SET a 2 EX 1 PX 1", Error("ERR syntax error"), "a=1"),
        ("a=1", "SET a 2 EX 1 KEEPTTL", Error("ERR syntax error"), "a=1"),
        ("a=1", "SET a 2 EX x", Error("ERR value is not an integer or out of range"), "a=1"),
        ("a=1", "SET a 2 EX 0", Error("ERR invalid expire time in 'set' command"), "a=1"),
        ("a=1", "SET a 2 PXAT 99", Error(errors.no_expiry("SET with PXAT")), "a=1"),
        ("a=1", "SETEX a 10 2", Error(errors.no_expiry("SETEX")), "a=1"),
        ("a=1", "EXPIRE a 10", Error(errors.no_expiry("EXPIRE")), "a=1"),
        ("a=1", "TTL a", -1, "a=1"),
        ("", "PTTL a", -2, ""),
        ("a=1", "PERSIST a", 0, "a=1"),
        ("", "SETNX a 1", 1, "a=1"),
        ("a=1", "SETNX a 2", 0, "a=1"),
        ("a=1", "GETSET a 2", b"1", "a=2"),
        ("", "GETSET a 2", None, "a=2"),
        ("a=1", "GETDEL a", b"1", ""),
        ("", "GETDEL a", None, ""),
        ("a=1 b=2", "MGET a x b a", [b"1", None, b"2", b"1"], "a=1 b=2"),
        ("a=1", "MSET a 2 b 3 a 4", OK, "a=4 b=3"),
        ("", "MSET a 1 b", Error("ERR wrong number of arguments for 'mset' command"), ""),
        ("", "MSETNX a 1 b 2", 1, "a=1 b=2"),
        ("b=1", "MSETNX a 1 b 2", 0, "b=1"),
        ("a=1 b=2", "DEL a x a", 1, "b=2"),
        ("a=1 b=2", "UNLINK a b", 2, ""),
        ("a=1", "EXISTS a a x", 2, "a=1"),
        ("a=1", "TOUCH a x", 1, "a=1"),
        ("a=1", "TYPE a", Simple("string"), "a=1"),
        ("", "TYPE a", Simple("none"), ""),
        ("a=123", "STRLEN a", 3, "a=123"),
        ("", "STRLEN a", 0, ""),
        ("a=1", "APPEND a 2", 2, "a=12"),
        ("", "APPEND a 2", 1, "a=2"),
        ("", "APPEND a ''", 0, "a="),
        ("a=hello", "GETRANGE a 1 3", b"ell", "a=hello"),
        ("a=hello", "SUBSTR a -3 -1", b"llo", "a=hello"),
        ("a=hello", "GETRANGE a 0 -100", b"h", "a=hello"),
        ("a=hello", "GETRANGE a -1 -3", b"", "a=hello"),
        ("a=hello", "GETRANGE a -100 100", b"hello", "a=hello"),
        ("a=hello", "GETRANGE a 5 9", b"", "a=hello"),
        ("", "GETRANGE a 0 -1", b"", ""),
        ("a=1", "GETRANGE a x 1", Error("ERR value is not an integer or out of range"), "a=1"),
        ("a=hello", "SETRANGE a 1 EY", 5, "a=hEYlo"),
        ("a=hello", "SETRANGE a 4 ab", 6, "a=hellab"),
        ("a=hi", "SETRANGE a 9 ''", 2, "a=hi"),
        ("", "SETRANGE a 1 ''", 0, ""),
        ("a=1", "SETRANGE a -1 x", Error("ERR offset is out of range"), "a=1"),
        ("", "INCR a", 1, "a=1"),
        ("a=-1", "INCRBY a 11", 10, "a=10"),
        ("a=5", "DECR a", 4, "a=4"),
        ("a=5", "DECRBY a -5", 10, "a=10"),
        (f"a={MAX}", "INCR a", Error("ERR increment or decrement would overflow"), f"a={MAX}"),
        (f"a={MIN}", "DECR a", Error("ERR increment or decrement would overflow"), f"a={MIN}"),
        ("a=x", "INCR a", Error("ERR value is not an integer or out of range"), "a=x"),
        ("a=01", "INCR a", Error("ERR value is not an integer or out of range"), "a=01"),
        ("a=1", "INCRBY a 1.5", Error("ERR value is not an integer or out of range"), "a=1"),
        ("a=1", f"DECRBY a {MIN}", Error("ERR decrement would overflow"), "a=1"),
        ("a=1 b=2", "RENAME a b", OK, "b=1"),
        ("a=1", "RENAME a a", OK, "a=1"),
        ("", "RENAME a b", Error("ERR no such key"), ""),
        ("a=1 b=2", "RENAMENX a b", 0, "a=1 b=2"),
        ("a=1", "RENAMENX a b", 1, "b=1"),
        ("", "SET '' 1", Error(errors.EMPTY_KEY), ""),
        ("", "GET ''", None, ""),
        ("", "GET", Error("ERR wrong number of arguments for 'get' command"), ""),
        ("", "SET a", Error("ERR wrong number of arguments for 'set' command"), ""),
        ("", "NO such 'command here'", Error("ERR unknown command 'NO', with args beginning with: 'such' 'command here' "), ""),
    ],
)  # fmt: skip
def test_commands(before: str, command: str, reply: Reply, after: str) -> None:
    """Reply and effect, as a Redis server has them; where the store differs, the error says so."""
    keys = store(before)
    args = split_line(command.encode())
    assert args
    assert (keys.do(*args), dict(keys)) == (reply, dict(store(after)))


def test_setrange_fills_with_zero_bytes() -> None:
    """Behind the end, also of a key that does not exist."""
    keys = store("a=x")
    assert keys.do(b"SETRANGE", b"a", b"3", b"y") == 4
    assert keys.do(b"SETRANGE", b"b", b"2", b"y") == 3
    assert keys == {b"a": b"x\0\0y", b"b": b"\0\0y"}


def test_values_grow_to_the_largest_and_no_further() -> None:
    """Redis's error, and the value stays."""
    keys = Keys({b"a": b"x" * MAX_VALUE_BYTES})
    assert keys.do(b"APPEND", b"a", b"y") == Error(errors.TOO_LONG)
    assert keys.do(b"SETRANGE", b"a", b"%d" % MAX_VALUE_BYTES, b"y") == Error(errors.TOO_LONG)
    assert keys.do(b"SETRANGE", b"a", b"%d" % (MAX_VALUE_BYTES - 1), b"y") == MAX_VALUE_BYTES
    assert keys.do(b"SETRANGE", b"a", b"%d" % MAX, b"y") == Error(errors.TOO_LONG)


def test_what_is_too_much_for_one_command_is_refused() -> None:
    """Keys, a key's length, what one command reads, what it writes."""
    keys = Keys({b"a": b"x" * MAX_VALUE_BYTES})
    assert keys.do(b"MGET", *[b"a"] * (MAX_REPLY_BYTES // MAX_VALUE_BYTES + 1)).startswith("ERR the values")  # type: ignore[union-attr]
    assert keys.do(b"SET", b"k" * (MAX_KEY_BYTES + 1), b"v") == Error(errors.key_too_long(MAX_KEY_BYTES + 1))
    assert keys.do(b"DEL", *[b"a"] * (MAX_KEYS + 1)).startswith("ERR 10001 keys")  # type: ignore[union-attr]
    pairs = [b"a", b"x" * MAX_VALUE_BYTES] * (MAX_WRITTEN_BYTES // MAX_VALUE_BYTES)
    assert keys.do(b"MSET", *pairs).startswith("ERR keys and values")  # type: ignore[union-attr]


@settings(deadline=None)
@given(st.integers(MIN - 2, MAX + 2))
def test_numbers_are_signed_64_bits(number: int) -> None:
    """Beyond them there is no number."""
    assert parse_integer(b"%d" % number) == (number if MIN <= number <= MAX else None)


@settings(deadline=None)
@given(st.binary(max_size=21))
def test_only_plain_decimal_text_is_a_number(text: bytes) -> None:
    """What Redis would print for it is the same text."""
    number = parse_integer(text)
    assert number is None or b"%d" % number == text


def test_every_command_with_keys_has_a_meaning() -> None:
    """The table of commands and the table of meanings agree."""
    for command in COMMANDS.values():
        if command.first:
            args = [command.name.encode(), *([b"1"] * (abs(command.arity) - 1))]
            if "Not possible" in command.summary:
                with pytest.raises(CommandError, match="no expiry"):
                    plan_of(command, args)
            else:
                assert plan_of(command, args).keys
