"""Commands from bytes: whatever is sent, however it is cut into pieces, as Redis reads it."""

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvresp.limits import MAX_ARGUMENTS, MAX_BULK_BYTES, MAX_COMMAND_BYTES, MAX_INLINE_BYTES
from kvresp.parser import split_line
from kvresp.reader import CommandReader


def request(*args: bytes) -> bytes:
    """A command as clients send it."""
    return b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%b\r\n" % (len(a), a) for a in args)


def read(*pieces: bytes) -> tuple[list[list[bytes]], str]:
    """What a new reader makes of the pieces."""
    reader = CommandReader()
    commands = [command for piece in pieces for command in reader.feed(piece)]
    return commands, reader.error


ARGUMENT = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"", b"*", b"*3\r\n", b"\r\n*100000\r\n", b"$5\r\n", b"\n*1\r\n", b"x" * 5000]),
)
COMMAND = st.lists(ARGUMENT, min_size=1, max_size=6)
INLINE = st.sampled_from([b"PING\r\n", b"  set a  'b c'\n", b'ECHO "\\x41\\n"\r\n', b"\r\n", b"*0\r\n", b"*-1\r\n"])


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The data in pieces."""
    bounds = [0, *sorted(p % (len(data) + 1) for p in places), len(data)]
    return [data[a:b] for a, b in pairwise(bounds)]


@settings(deadline=None)
@given(st.lists(COMMAND, max_size=8), st.lists(st.integers(0, 1 << 20), max_size=6))
def test_commands_come_out_as_they_were_sent(commands: list[list[bytes]], places: list[int]) -> None:
    """Wherever the network cuts the bytes, and whatever the arguments look like."""
    data = b"".join(request(*c) for c in commands)
    assert read(*cut(data, places)) == (commands, "")


@settings(deadline=None)
@given(st.lists(st.one_of(COMMAND.map(lambda c: request(*c)), INLINE), max_size=8), st.lists(st.integers(0, 1 << 20)))
def test_inline_commands_may_stand_between_others(sent: list[bytes], places: list[int]) -> None:
    """In one piece, in many, byte by byte: the same commands; empty ones are none."""
    data = b"".join(sent)
    whole = read(data)
    assert whole[1] == ""
    assert read(*cut(data, places)) == whole
    assert read(*(data[i : i + 1] for i in range(len(data)))) == whole
    assert all(whole[0])


@settings(deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 1 << 20), max_size=4))
def test_garbage_is_read_the_same_in_whatever_pieces(data: bytes, places: list[int]) -> None:
    """No exception, and hiredis and our own parser agree."""
    assert read(*cut(data, places)) == read(*(data[i : i + 1] for i in range(len(data))))


@settings(deadline=None)
@given(st.lists(COMMAND, min_size=1, max_size=3), st.integers(0, 1 << 20), st.integers(0, 255))
def test_one_wrong_byte_is_read_the_same_in_whatever_pieces(commands: list[list[bytes]], at: int, byte: int) -> None:
    """A damaged stream gives the same commands and the same error by either parser."""
    data = bytearray(b"".join(request(*c) for c in commands))
    data[at % len(data)] = byte
    one_by_one = read(*(bytes(data[i : i + 1]) for i in range(len(data))))
    if b"\r\n+" not in data and b"\r\n=" not in data and b"\r\n(" not in data:  # hiredis takes these for strings
        assert read(bytes(data)) == one_by_one


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"*3x\r\n", "Protocol error: invalid multibulk length"),
        (b"*%d\r\n" % (MAX_ARGUMENTS + 1), "Protocol error: invalid multibulk length"),
        (b"*99999999999999999999\r\n", "Protocol error: invalid multibulk length"),
        (b"*1\r\n:5\r\n", "Protocol error: expected '$', got ':'"),
        (b"*1\r\nPING\r\n", "Protocol error: expected '$', got 'P'"),
        (b"*1\r\n$-1\r\n", "Protocol error: invalid bulk length"),
        (b"*1\r\n$x\r\n", "Protocol error: invalid bulk length"),
        (b"*2\r\n$3\r\nGET\r\n$%d\r\n" % (MAX_BULK_BYTES + 1), "Protocol error: invalid bulk length"),
        (b"*" + b"1" * (MAX_INLINE_BYTES + 1), "Protocol error: too big mbulk count string"),
        (b"*1\r\n$" + b"1" * (MAX_INLINE_BYTES + 1), "Protocol error: too big bulk count string"),
        (b"x" * (MAX_INLINE_BYTES + 1), "Protocol error: too big inline request"),
        (b"SET a 'b\r\n", "Protocol error: unbalanced quotes in request"),
        (b'SET a "b"c\r\n', "Protocol error: unbalanced quotes in request"),
    ],
)
def test_what_is_no_command_gets_redis_own_error(sent: bytes, error: str) -> None:
    """Behind a good command too, which is still done; nothing is read behind it."""
    good = request(b"PING")
    assert read(sent) == ([], error)
    assert read(good + sent + good) == ([[b"PING"]], error)
    assert read(good, sent, good) == ([[b"PING"]], error)


@pytest.mark.parametrize("kind", [b"+k", b"=5\r\ntxt:k", b"(5", b",5.5", b":5", b"_", b"#t"])
def test_arguments_are_bulk_strings_and_nothing_else(kind: bytes) -> None:
    """Hiredis takes some other types for strings: Redis ends the connection, whatever comes before and behind."""
    sent = b"*2\r\n$3\r\nGET\r\n%b\r\n" % kind
    good, error = request(b"PING"), f"Protocol error: expected '$', got '{kind[:1].decode()}'"
    for data in (sent, good + sent, good + sent + good):
        assert read(data) == ([[b"PING"]] * data.startswith(good), error)


def test_values_that_begin_like_other_types_are_values() -> None:
    """In a pipeline whose last command is not whole."""
    commands = [[b"SET", b"k", value] for value in (b"+49", b"=x", b"(y", b"\r\n+z")]
    data = b"".join(request(*command) for command in commands)
    assert read(data) == (commands, "")
    assert read(data + data[:-5], data[-5:]) == (commands * 2, "")


def test_a_value_of_the_largest_size_is_taken() -> None:
    """In pieces as they come from a socket."""
    value = b"x" * MAX_BULK_BYTES
    data = request(b"SET", b"k", value)
    commands, error = read(*(data[i : i + 65536] for i in range(0, len(data), 65536)), request(b"PING"))
    assert error == ""
    assert commands == [[b"SET", b"k", value], [b"PING"]]


def test_a_command_of_many_large_arguments_is_refused() -> None:
    """Before they are all in memory."""
    reader = CommandReader()
    reader.feed(b"*100\r\n")
    sent = 0
    while not reader.error:
        reader.feed(b"$%d\r\n%b\r\n" % (MAX_BULK_BYTES, b"x" * MAX_BULK_BYTES))
        sent += MAX_BULK_BYTES
        assert sent <= MAX_COMMAND_BYTES
    assert reader.error == f"Protocol error: a command of more than {MAX_COMMAND_BYTES} bytes"


def test_hiredis_never_sees_a_long_array() -> None:
    """It would make room for as many arguments as are said to come; also when the header comes in pieces."""
    seen: list[bytes] = []

    class Spy:
        def feed(self, data: bytes) -> None:
            seen.append(data)

        def has_data(self) -> bool:
            return True

        def gets(self) -> bool:
            return False  # nothing is whole

    for pieces in ([b"*10000\r\n"], [b"*1", b"0000\r\n"], [request(b"PING") + b"*10000\r\n$1\r\nx\r\n"]):
        reader = CommandReader()
        reader._fast = Spy()  # type: ignore[assignment]
        for piece in pieces:
            reader.feed(piece)
    assert all(len(data) < len(b"*10000\r\n") for data in seen)


@pytest.mark.parametrize(
    "sent",
    [b"*1\r\n%b9999999\r\n" % kind for kind in (b"*", b"~", b">", b"|", b"%")]
    + [b"*2\r\n$1\r\nabc*9999999\r\n", b"*2\r\n$1\r\nabc~9999999\r\n"],
)
def test_no_room_is_made_for_what_is_only_said_to_come(sent: bytes) -> None:
    """Whatever kind of array it says it is, and wherever hiredis would take it for one."""
    tracemalloc.start()
    try:
        _, error = read(sent)
        assert error.startswith("Protocol error: expected '$'")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("line", "args"),
    [
        (b"set  key\tvalue ", [b"set", b"key", b"value"]),
        (b"", []),
        (b"'it\\'s' \"a\\tb\\x00\\q\"", [b"it's", b"a\tb\x00q"]),
        (b'"\\x4g"', [b"x4g"]),
        (b"a'b'", [b"ab"]),
        (b"'open", None),
        (b'"a"b', None),
    ],
)
def test_inline_words_and_quotes(line: bytes, args: list[bytes] | None) -> None:
    """As redis-cli's and a telnet user's lines are split."""
    assert split_line(line) == args
