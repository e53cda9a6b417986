"""What waits to be sent: single calls, and groups that stay together and in order in one batch.

A unit ends exactly once, with results as plain tuples (version, value, error or None).
"""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final, Protocol

from kvclient.operations import GET, OPERATION_OVERHEAD
from kvclient.retry import Seen, classify
from kvproto.pipeline import Columns, OperationTuple, ResultTuple, all_done
from kvproto.v1 import kv_pb2

Pair = tuple[bytes, int]  # client id, sequence


class Unit(Protocol):
    """One or more operations of one partition with one deadline."""

    deadline: float  # by the loop's clock
    size: int  # bytes, about
    released: bool  # no longer counts towards the engine's bounds

    @property
    def operations(self) -> Sequence[OperationTuple]:
        """Those still to be done."""
        ...

    @property
    def charge(self) -> int:
        """Operations that the unit counts as towards the engine's bounds, until it ends."""
        ...

    refusal: kv_pb2.Error | None  # the last, for the text of the error
    observed: int  # a version that the answer must not be older than, beside the engine's own; 0: none

    @property
    def count(self) -> int:
        """Operations still to be done."""
        ...

    @property
    def pair(self) -> Pair | None:
        """The caller's own (client id, sequence), which must stay."""
        ...

    @property
    def born(self) -> float | None:
        """When the caller's own pair was first sent, by the loop's clock; None: not yet."""
        ...

    @property
    def done(self) -> bool:
        """Whether its caller has its answer, or has gone."""
        ...

    def fill(self, operations: list[OperationTuple]) -> None:
        """Add the operations to a request."""
        ...

    def take(self, results: Sequence[ResultTuple]) -> Seen:
        """Take the answers to the operations filled in, in order; ends the unit when all are final."""
        ...

    def all_keys(self) -> Iterable[bytes]:
        """The keys of the operations still to be done."""
        ...

    def shrink(self) -> None:
        """Forget the operations that have final answers: what is left will be sent in another batch."""
        ...

    def fail(self, error: kv_pb2.Error) -> None:
        """End the unit: what has no final answer gets this error."""
        ...


class Call:
    """A single operation."""

    __slots__ = ("deadline", "future", "observed", "operation", "refusal", "released", "size")
    count: Final = 1
    charge: Final = 1
    pair: Final[Pair | None] = None
    born: Final[float | None] = None

    def __init__(  # noqa: PLR0917 - every operation passes here: keywords would cost a tenth of the call
        self,
        kind: int,
        key: bytes,
        value: bytes,
        expected: int | None,
        deadline: float,
        future: "asyncio.Future[ResultTuple]",
    ) -> None:
        self.operation = (kind, key, value, expected)
        self.deadline = deadline
        self.future = future
        self.observed = 0
        self.size = len(key) + len(value) + OPERATION_OVERHEAD
        self.released = False
        self.refusal: kv_pb2.Error | None = None

    @property
    def key(self) -> bytes:
        return self.operation[1]

    @property
    def operations(self) -> Sequence[OperationTuple]:
        return (self.operation,)

    @property
    def done(self) -> bool:
        return self.future.done()

    def fill(self, operations: list[OperationTuple]) -> None:
        operations.append(self.operation)

    def take(self, results: Sequence[ResultTuple]) -> Seen:
        (result,) = results
        error = result[2]
        if error is not None:
            seen = classify(error.code)
            if seen is not Seen.FINAL:
                self.refusal = error
                return seen
        if not self.future.done():
            self.future.set_result(result)
        return Seen.FINAL

    def all_keys(self) -> Iterable[bytes]:
        return (self.key,)

    def shrink(self) -> None:
        return

    def fail(self, error: kv_pb2.Error) -> None:
        if not self.future.done():
            self.future.set_result((0, b"", error))


class Group:
    """Operations of one explicit batch on one partition: in order, in one request."""

    __slots__ = (
        "_positions",
        "_results",
        "born",
        "charge",
        "deadline",
        "future",
        "observed",
        "operations",
        "pair",
        "refusal",
        "released",
        "size",
    )

    def __init__(
        self,
        operations: Sequence[OperationTuple],
        deadline: float,
        future: "asyncio.Future[Sequence[ResultTuple]]",
        pair: Pair | None = None,
        born: float | None = None,
    ) -> None:
        self.operations = operations
        self.charge = len(operations)
        self.deadline = deadline
        self.future = future
        self.pair = pair
        self.born = born
        self.observed = 0
        self.size = size_of(operations)
        self.released = False
        self.refusal: kv_pb2.Error | None = None
        self._results: list[ResultTuple | None] = []  # by position; empty until an answer was not a whole one
        self._positions: list[int] = []  # of the operations still to be done

    @property
    def count(self) -> int:
        return len(self.operations)

    @property
    def done(self) -> bool:
        return self.future.done()

    def fill(self, operations: list[OperationTuple]) -> None:
        operations.extend(self.operations)

    def take(self, results: Sequence[ResultTuple]) -> Seen:
        if not self._results and all_done(results):  # nearly always
            if not self.future.done():
                self.future.set_result(results)
            return Seen.FINAL
        self._keep_parts()
        seen, final, known = Seen.NOTHING, False, self._results
        for position, result in zip(self._positions, results, strict=True):
            error = result[2]
            if error is not None:
                what = classify(error.code)
                if what is not Seen.FINAL:
                    self.refusal = error
                    seen |= what
                    continue
            final = True
            if known[position] is None:
                known[position] = result
        if not seen:
            self._end()
        return seen | Seen.FINAL if final else seen

    def all_keys(self) -> Iterable[bytes]:
        return (operation[1] for operation in self.operations)

    def shrink(self) -> None:
        self._keep_parts()
        left = [i for i, position in enumerate(self._positions) if self._results[position] is None]
        self.operations = [self.operations[i] for i in left]
        self._positions = [self._positions[i] for i in left]

    def fail(self, error: kv_pb2.Error) -> None:
        self._keep_parts()
        for position, operation in zip(self._positions, self.operations, strict=True):
            if self._results[position] is None:
                self._results[position] = (0, b"", _of_read(error) if operation[0] == GET else error)
        self._end()

    def _keep_parts(self) -> None:
        if not self._results:
            self._results = [None] * self.charge
            self._positions = list(range(self.charge))

    def _end(self) -> None:
        if not self.future.done():
            self.future.set_result([result for result in self._results if result is not None])


def joined(units: Sequence[Unit]) -> Sequence[OperationTuple]:
    """The operations of units that travel together; in columns if those of all are."""
    if len(units) == 1:
        return units[0].operations
    if type(units[0]) is not Call:
        parts = [unit.operations for unit in units]
        columns = [part for part in parts if type(part) is Columns]
        if len(columns) == len(units) and len({part.kind for part in columns}) == 1:
            keys = [*chain.from_iterable(part.keys for part in columns)]
            return Columns(columns[0].kind, keys, [*chain.from_iterable(part.values for part in columns)])
    operations: list[OperationTuple] = []
    for unit in units:
        if type(unit) is Call:
            operations.append(unit.operation)
        else:
            unit.fill(operations)
    return operations


def size_of(operations: Sequence[OperationTuple]) -> int:
    """Bytes that they take, about."""
    overhead = len(operations) * OPERATION_OVERHEAD
    if type(operations) is Columns:
        if operations.size is not None:
            return operations.size + overhead
        return sum(map(len, operations.keys)) + sum(map(len, operations.values)) + overhead
    return sum([len(operation[1]) + len(operation[2]) for operation in operations]) + overhead


def _of_read(error: kv_pb2.Error) -> kv_pb2.Error:
    """A read has no outcome to be unknown."""
    if error.code != kv_pb2.ERROR_CODE_OUTCOME_UNKNOWN:
        return error
    return kv_pb2.Error(code=kv_pb2.ERROR_CODE_DEADLINE_EXCEEDED, message="the read was not answered in time")
