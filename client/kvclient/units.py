"""What waits to be sent: single calls, and groups that stay together and in order in one batch.

A unit ends exactly once, with results as protos: the client decodes them, the router passes them on as they are.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

from kvclient.operations import GET, OPERATION_OVERHEAD
from kvclient.retry import Seen, classify
from kvproto.v1 import kv_pb2

Operations = RepeatedCompositeFieldContainer[kv_pb2.Operation]
Pair = tuple[bytes, int]  # client id, sequence


class Unit(Protocol):
    """One or more operations of one partition with one deadline."""

    deadline: float  # by the loop's clock
    size: int  # bytes, about
    released: bool  # no longer counts towards the engine's bounds

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

    def fill(self, operations: Operations) -> None:
        """Add the operations to a request."""
        ...

    def take(self, results: Sequence[kv_pb2.Result]) -> Seen:
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

    __slots__ = ("deadline", "expected", "future", "key", "kind", "observed", "refusal", "released", "size", "value")
    count: Final = 1
    charge: Final = 1
    pair: Final[Pair | None] = None
    born: Final[float | None] = None

    def __init__(  # noqa: PLR0917 - every operation passes here: keywords would cost a tenth of the call
        self,
        kind: "kv_pb2.OperationKind.ValueType",
        key: bytes,
        value: bytes,
        expected: int | None,
        deadline: float,
        future: "asyncio.Future[kv_pb2.Result]",
    ) -> None:
        self.kind = kind
        self.key = key
        self.value = value
        self.expected = expected
        self.deadline = deadline
        self.future = future
        self.observed = 0
        self.size = len(key) + len(value) + OPERATION_OVERHEAD
        self.released = False
        self.refusal: kv_pb2.Error | None = None

    @property
    def done(self) -> bool:
        return self.future.done()

    def fill(self, operations: Operations) -> None:
        operations.add(kind=self.kind, key=self.key, value=self.value, expected_version=self.expected)

    def take(self, results: Sequence[kv_pb2.Result]) -> Seen:
        return self.take_one(results[0])

    def take_one(self, result: kv_pb2.Result) -> Seen:
        """As `take`, without the list."""
        if result.HasField("error"):
            seen = classify(result.error.code)
            if seen is not Seen.FINAL:
                self.refusal = result.error
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
            self.future.set_result(kv_pb2.Result(error=error))


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
        operations: Sequence[kv_pb2.Operation],
        deadline: float,
        future: "asyncio.Future[list[kv_pb2.Result]]",
        pair: Pair | None = None,
        born: float | None = None,
    ) -> None:
        self.operations = list(operations)
        self.charge = len(self.operations)
        self.deadline = deadline
        self.future = future
        self.pair = pair
        self.born = born
        self.observed = 0
        self.size = sum(len(o.key) + len(o.value) + OPERATION_OVERHEAD for o in self.operations)
        self.released = False
        self.refusal: kv_pb2.Error | None = None
        self._results: list[kv_pb2.Result | None] = [None] * len(self.operations)
        self._positions = list(range(len(self.operations)))

    @property
    def count(self) -> int:
        return len(self.operations)

    @property
    def done(self) -> bool:
        return self.future.done()

    def fill(self, operations: Operations) -> None:
        operations.extend(self.operations)

    def take(self, results: Sequence[kv_pb2.Result]) -> Seen:
        seen, final, known = Seen.NOTHING, False, self._results
        for position, result in zip(self._positions, results, strict=True):
            if result.HasField("error"):
                what = classify(result.error.code)
                if what is not Seen.FINAL:
                    self.refusal = result.error
                    seen |= what
                    continue
            final = True
            if known[position] is None:
                known[position] = result
        if not seen:
            self._end()
        return seen | Seen.FINAL if final else seen

    def all_keys(self) -> Iterable[bytes]:
        return (operation.key for operation in self.operations)

    def shrink(self) -> None:
        left = [i for i, position in enumerate(self._positions) if self._results[position] is None]
        self.operations = [self.operations[i] for i in left]
        self._positions = [self._positions[i] for i in left]

    def fail(self, error: kv_pb2.Error) -> None:
        for position, operation in zip(self._positions, self.operations, strict=True):
            if self._results[position] is None:
                self._results[position] = kv_pb2.Result(error=_of_read(error) if operation.kind == GET else error)
        self._end()

    def _end(self) -> None:
        if not self.future.done():
            self.future.set_result([result for result in self._results if result is not None])


def _of_read(error: kv_pb2.Error) -> kv_pb2.Error:
    """A read has no outcome to be unknown."""
    if error.code != kv_pb2.ERROR_CODE_OUTCOME_UNKNOWN:
        return error
    return kv_pb2.Error(code=kv_pb2.ERROR_CODE_DEADLINE_EXCEEDED, message="the read was not answered in time")
