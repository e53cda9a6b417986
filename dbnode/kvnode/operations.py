"""What a door asks of the request service, and what it gets: typed values that no door's protocol leaks into.

Operations and results are plain tuples on purpose: a node makes hundreds of thousands of them a second.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import repeat
from typing import NamedTuple, overload

from kvproto.pipeline import Columns

__all__ = ["Code", "Columns", "Found", "Kind", "Operation", "Outcome", "ReadMode", "Request", "Written"]


class Kind(IntEnum):
    """What an operation does; the numbers are those of the API."""

    GET = 1
    PUT = 2
    CREATE = 3
    UPDATE = 4
    DELETE = 5


class ReadMode(IntEnum):
    """How fresh a Get must be; the numbers are those of the API."""

    LINEARIZABLE = 1
    BOUNDED = 2
    ANY = 3


class Code(IntEnum):
    """How an operation ended. OK, or an error; the numbers of errors are those of the API."""

    OK = 0
    INVALID_ARGUMENT = 1
    NOT_FOUND = 2
    ALREADY_EXISTS = 3
    VERSION_MISMATCH = 4
    NOT_LEADER = 5
    MOVED = 6
    UNAVAILABLE = 7
    TOO_FEW_REPLICAS = 8
    OUTCOME_UNKNOWN = 9
    RESOURCE_EXHAUSTED = 10
    DEADLINE_EXCEEDED = 11
    TOO_STALE = 12
    INTERNAL = 13


Operation = tuple[int, bytes, bytes, int | None]
"""(kind, key, value, expected version or None)"""


class Outcome(NamedTuple):
    """One operation's result. OK: the record's version, and for a Get its value. Otherwise: the version found, if any."""

    code: int
    version: int = 0
    value: bytes = b""
    message: str = ""


class Written(Sequence[Outcome]):
    """The outcomes of writes that all were done, with versions that follow each other, as most are: no object for each."""

    __slots__ = ("versions",)

    def __init__(self, versions: range) -> None:
        self.versions = versions

    def __len__(self) -> int:
        return len(self.versions)

    @overload
    def __getitem__(self, at: int) -> Outcome: ...
    @overload
    def __getitem__(self, at: slice) -> "Written": ...
    def __getitem__(self, at: int | slice) -> "Outcome | Written":
        return Written(self.versions[at]) if isinstance(at, slice) else Outcome(0, self.versions[at])

    def __iter__(self) -> Iterator[Outcome]:
        return map(Outcome, repeat(0), self.versions)


class Found(Sequence[Outcome]):
    """The outcomes of Gets that all found something, in columns."""

    __slots__ = ("values", "versions")

    def __init__(self, versions: Sequence[int], values: Sequence[bytes]) -> None:
        self.versions, self.values = versions, values

    def __len__(self) -> int:
        return len(self.versions)

    @overload
    def __getitem__(self, at: int) -> Outcome: ...
    @overload
    def __getitem__(self, at: slice) -> "Found": ...
    def __getitem__(self, at: int | slice) -> "Outcome | Found":
        if isinstance(at, slice):
            return Found(self.versions[at], self.values[at])
        return Outcome(0, self.versions[at], self.values[at])

    def __iter__(self) -> Iterator[Outcome]:
        return map(Outcome, repeat(0), self.versions, self.values)


@dataclass(slots=True)
class Request:
    """A batch of operations on one partition, from one caller.

    `pair` is the caller's (client id, sequence), which makes writes safe to repeat; `age` how long ago, in seconds,
    it was first sent. `deadline` is this node's clock; past it nothing of the batch is begun.
    """

    operations: Sequence[Operation]
    pair: tuple[bytes, int] | None = None
    age: float = 0.0
    read_mode: int = ReadMode.LINEARIZABLE
    max_lag: float = 0.0
    observed: int = 0
    deadline: float = float("inf")
    size: int = 0  # bytes of keys and values
