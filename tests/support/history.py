"""What clients did and saw: the operations of a history, and the checks that need no search.

Times are seconds on one clock that all recorded clients share (the simulator's true time, or one machine's monotonic
clock). A write whose outcome is unknown stays pending for ever: it may take effect at any later time, or never.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What an operation asks for; the meanings are those of `kv.proto`."""

    GET = "get"
    PUT = "put"
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


class Result(StrEnum):
    """How an operation ended."""

    OK = "ok"
    NOT_FOUND = "not_found"
    ALREADY_EXISTS = "already_exists"
    VERSION_MISMATCH = "version_mismatch"
    UNKNOWN = "unknown"  # may have been, or yet be, applied
    FAILED = "failed"  # certainly never applied, and nothing was learnt


@dataclass(frozen=True, slots=True)
class Outcome:
    """A result with what came along: the version written, read or found (0: no such key), and the value read."""

    result: Result
    version: int | None = None
    value: bytes | None = None

    def __str__(self) -> str:
        parts = [self.result.value]
        if self.version is not None:
            parts.append(f"version {self.version}")
        if self.value is not None:
            parts.append(f"value {self.value!r}")
        return " ".join(parts)


UNKNOWN = Outcome(Result.UNKNOWN)
FAILED = Outcome(Result.FAILED)


def whose(client: int, request: str) -> str:
    """Whose a call is, and by which name it can be found, for people."""
    return f"client {client}{f' ({request})' if request else ''}"


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of one client. `returned` is None exactly when the outcome is unknown. `request`: its name, if it has one."""

    client: int
    key: bytes
    kind: Kind
    value: bytes | None
    expected_version: int | None
    invoked: float
    returned: float | None
    outcome: Outcome
    request: str = ""

    @property
    def whose(self) -> str:
        """Whose it is, and by which name it can be found, for people."""
        return whose(self.client, self.request)

    @property
    def during(self) -> str:
        """From when to when, for people."""
        until = "never told" if self.returned is None else f"{self.returned:.6f}"
        return f"{self.invoked:.6f} .. {until}"

    @property
    def writes(self) -> bool:
        """Whether it was acknowledged as having changed the key."""
        return self.kind is not Kind.GET and self.outcome.result is Result.OK

    @property
    def asks(self) -> str:
        """What was asked for, for people."""
        value = "" if self.value is None else f" {self.value!r}"
        expected = "" if self.expected_version is None else f" if version is {self.expected_version}"
        return f"{self.kind.value}{value}{expected}"


@dataclass
class History:
    """Collects operations as they end; `record` is the only way in."""

    operations: list[Operation] = field(default_factory=list)

    def record(
        self,
        client: int,
        key: bytes,
        kind: Kind | str,
        *,
        invoked: float,
        returned: float | None,
        outcome: Outcome,
        value: bytes | None = None,
        expected_version: int | None = None,
        request: str = "",
    ) -> Operation:
        """Add one operation; an unknown outcome is pending for ever, whatever time is given as its return.

        Raises ValueError when it returned before it was invoked, or has an outcome but no time of return.
        """
        if outcome.result is Result.UNKNOWN:
            returned = None
        elif returned is None or returned < invoked:
            raise ValueError(
                f"{kind} of {key!r} invoked at {invoked} returned {outcome} at {returned}: give a later time"
            )
        operation = Operation(client, key, Kind(kind), value, expected_version, invoked, returned, outcome, request)
        self.operations.append(operation)
        return operation

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.operations)

    def __len__(self) -> int:
        return len(self.operations)

    def by_key(self) -> dict[bytes, list[Operation]]:
        """Operations of each key, in the order recorded."""
        keys: dict[bytes, list[Operation]] = {}
        for operation in self.operations:
            keys.setdefault(operation.key, []).append(operation)
        return keys


def version_violations(operations: Sequence[Operation]) -> list[str]:
    """Invariant 20 as clients see it, one sentence per breach; necessary for linearizability, linear in time.

    No two acknowledged writes have the same version; along real time, per key, a write's version is above and a
    read's is not below every version answered before it was invoked.
    """
    problems = []
    writers: dict[int, Operation] = {}
    for operation in operations:
        version = operation.outcome.version
        if operation.writes and version is not None and writers.setdefault(version, operation) is not operation:
            other = writers[version]
            problems.append(
                f"version {version} was given to two writes: {other.asks} of {other.key!r} by {other.whose}, "
                f"{other.during}, and {operation.asks} of {operation.key!r} by {operation.whose}, {operation.during}"
            )
    for key, of_key in History(list(operations)).by_key().items():
        problems.extend(_turned_back(key, of_key))
    return problems


def _turned_back(key: bytes, operations: Sequence[Operation]) -> Iterator[str]:
    seen = [o for o in operations if o.outcome.version and o.returned is not None]
    ends = sorted(seen, key=lambda o: o.returned or 0.0)
    highest: Operation | None = None
    at = 0
    for operation in sorted(seen, key=lambda o: o.invoked):
        while at < len(ends) and (ends[at].returned or 0.0) < operation.invoked:
            if highest is None or (ends[at].outcome.version or 0) > (highest.outcome.version or 0):
                highest = ends[at]
            at += 1
        version, before = operation.outcome.version or 0, highest.outcome.version or 0 if highest else 0
        if highest and (version < before or (operation.writes and version == before)):
            yield (
                f"key {key!r} went back: {operation.whose} {operation.asks} -> {operation.outcome}, invoked "
                f"at {operation.invoked:.6f}, after {highest.whose} {highest.asks} -> {highest.outcome} "
                f"had returned at {highest.returned:.6f}"
            )


def lost_writes(operations: Sequence[Operation], final: Mapping[bytes, int]) -> list[str]:
    """Acknowledged writes that are neither there at the end nor superseded: the final version of a key is below theirs.

    `final` holds each present key's version; a key that is absent from it is taken as lost unless some acknowledged
    or unknown deletion may explain it (the linearizability check then judges).
    """
    problems = []
    for key, of_key in History(list(operations)).by_key().items():
        acknowledged = [o for o in of_key if o.writes]
        if not acknowledged:
            continue
        last = max(acknowledged, key=lambda o: o.outcome.version or 0)
        deletable = any(o.kind is Kind.DELETE and o.outcome.result in (Result.OK, Result.UNKNOWN) for o in of_key)
        if (key not in final and not deletable) or (key in final and final[key] < (last.outcome.version or 0)):
            found = f"version {final[key]}" if key in final else "nothing"
            problems.append(
                f"key {key!r}: {last.whose} {last.asks} -> {last.outcome}, {last.during}, is lost, {found} is there"
            )
    return problems
