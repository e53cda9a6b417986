"""SCAN's arguments, and what of the keys it shows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kvresp import errors
from kvresp.errors import CommandError
from kvresp.glob import compile_glob
from kvresp.meaning import integer_argument

DEFAULT_COUNT = 10
MAX_COUNT = 10_000
_MAX_CURSOR = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Scan:
    """A SCAN understood. `count` is how many keys to look at, at most MAX_COUNT, whatever was asked."""

    cursor: int
    count: int = DEFAULT_COUNT
    match: bytes = b"*"
    type: bytes = b"string"

    def shown(self, keys: Iterable[bytes]) -> list[bytes]:
        """Those of the keys, all of which exist, that it asks for."""
        if self.type != b"string":
            return []
        if self.match == b"*":
            return list(keys)
        matches = compile_glob(self.match)
        return [key for key in keys if matches(key)]


def parse_scan(args: Sequence[bytes]) -> Scan:
    """`SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`. Raises CommandError."""
    if not args[1].isdigit() or int(args[1]) > _MAX_CURSOR:
        raise CommandError(errors.INVALID_CURSOR)
    count, match, kind = DEFAULT_COUNT, b"*", b"string"
    rest = list(args[2:])
    while rest:
        word = rest.pop(0).upper()
        if word not in (b"MATCH", b"COUNT", b"TYPE") or not rest:
            raise CommandError(errors.SYNTAX)
        value = rest.pop(0)
        if word == b"MATCH":
            match = value
        elif word == b"TYPE":
            kind = value.lower()
        else:
            count = integer_argument(value)
            if count < 1:
                raise CommandError(errors.SYNTAX)
    return Scan(int(args[1]), min(count, MAX_COUNT), match, kind)
