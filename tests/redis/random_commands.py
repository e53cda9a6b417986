"""Random commands for the differential test: mostly sensible, on few keys that have met before, and sometimes odd."""

from hypothesis import strategies as st

Command = tuple[bytes, ...]

# Two share a slot by their hash tag; the others are of other slots, one of them in binary.
KEYS = (b"{t}1", b"{t}2", b"key", b"\x00\r\n\xff", b"{}", b"n")
LARGEST, SMALLEST = 2**63 - 1, -(2**63)

keys = st.sampled_from(KEYS)
integers = st.one_of(
    st.integers(-3, 3),
    st.sampled_from((LARGEST, LARGEST - 1, SMALLEST, SMALLEST + 1, LARGEST + 1, SMALLEST - 1)),
    st.integers(-(2**65), 2**65),
).map(lambda n: b"%d" % n)
odd_numbers = st.sampled_from((b"", b" 1", b"1 ", b"01", b"+1", b"-0", b"1.0", b"1e2", b"0x1", b"1_0", b"a", b"\xb2"))
values = st.one_of(st.sampled_from((b"", b"a", b"b", b"\r\n")), integers, odd_numbers, st.binary(max_size=20))
numbers = st.one_of(integers, integers, integers, odd_numbers)
options = st.lists(st.sampled_from((b"NX", b"XX", b"GET", b"KEEPTTL", b"nx", b"Get", b"FOO", b"")), max_size=3)


def _fixed(name: bytes, *arguments: st.SearchStrategy[bytes]) -> st.SearchStrategy[Command]:
    return st.tuples(st.just(name), *arguments)


def _several(name: bytes, item: st.SearchStrategy[Command]) -> st.SearchStrategy[Command]:
    return st.lists(item, min_size=1, max_size=4).map(lambda items: (name, *(part for item in items for part in item)))


_one = st.tuples(keys)
_pair = st.tuples(keys, values)
_set = st.builds(lambda key, value, more: (b"SET", key, value, *more), keys, values, options)

_sensible = st.one_of(
    _set,
    _set,
    _fixed(b"GET", keys),
    _fixed(b"GET", keys),
    *(_fixed(name, keys) for name in (b"GETDEL", b"STRLEN", b"INCR", b"DECR", b"TYPE")),
    *(_fixed(name, keys, values) for name in (b"SETNX", b"GETSET", b"APPEND")),
    *(_fixed(name, keys, numbers) for name in (b"INCRBY", b"DECRBY")),
    _fixed(b"GETRANGE", keys, numbers, numbers),
    _fixed(b"RENAME", keys, keys),
    *(_several(name, _one) for name in (b"MGET", b"DEL", b"UNLINK", b"EXISTS", b"TOUCH")),
    *(_several(name, _pair) for name in (b"MSET", b"MSETNX")),
    _fixed(b"PING", values),
    _fixed(b"ECHO", values),
    st.just((b"DBSIZE",)),
    st.sampled_from([(b"HELLO", b"3"), (b"HELLO", b"2"), (b"RESET",), (b"SELECT", b"0")]),
    st.sampled_from([(b"SCAN", b"0", b"COUNT", b"1000", b"MATCH", b"{t}1"), (b"SCAN", b"0", b"MATCH", b"no")]),
)
_NAMES = (
    *(
        b"GET SET SETNX GETSET GETDEL MGET MSET MSETNX DEL UNLINK EXISTS TYPE STRLEN APPEND GETRANGE INCR INCRBY".split()
    ),
    *(b"DECR DECRBY TOUCH RENAME DBSIZE PING ECHO SELECT".split()),
)
_names = st.sampled_from((*_NAMES, *(name.lower() for name in _NAMES), b"NOSUCH", b"g\xc3\xa9t", b""))
_odd = st.builds(lambda name, rest: (name, *rest), _names, st.lists(st.one_of(keys, values), max_size=4))

commands: st.SearchStrategy[Command] = st.one_of(_sensible, _sensible, _sensible, _sensible, _odd)
sessions: st.SearchStrategy[list[Command]] = st.lists(commands, min_size=1, max_size=30)
