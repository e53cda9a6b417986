"""The single calls of one turn of the event loop, together: while all goes well, only a future is made for each."""

import asyncio
from collections.abc import Iterable, Sequence
from operator import methodcaller
from typing import Final

from kvclient.retry import Seen, classify
from kvclient.units import Call, Pair, size_of
from kvproto.pipeline import OperationTuple, ResultTuple, all_done
from kvproto.v1 import kv_pb2

_IS_DONE = methodcaller("done")


class Burst:
    """Calls of one partition with one deadline: a `Unit`. When something goes wrong they go on as `calls` of their own."""

    __slots__ = ("charge", "count", "deadline", "futures", "observed", "operations", "refusal", "released", "size")
    pair: Final[Pair | None] = None
    born: Final[float | None] = None

    def __init__(
        self,
        operations: Sequence[OperationTuple],
        futures: Sequence["asyncio.Future[ResultTuple]"],
        deadline: float,
    ) -> None:
        self.operations, self.futures, self.deadline = operations, futures, deadline
        self.count = self.charge = len(futures)
        self.size = size_of(operations)
        self.observed = 0
        self.released = False
        self.refusal: kv_pb2.Error | None = None

    @property
    def done(self) -> bool:
        return all(map(_IS_DONE, self.futures))

    @property
    def begun(self) -> bool:
        """Whether any of its callers has its answer, or has gone."""
        return any(map(_IS_DONE, self.futures))

    def split(self, count: int) -> "Burst":
        """Give up the first `count` calls, as another burst."""
        first = Burst(self.operations[:count], self.futures[:count], self.deadline)
        self.operations, self.futures = self.operations[count:], self.futures[count:]
        self.count = self.charge = len(self.futures)
        self.size -= first.size
        return first

    def calls(self) -> list[Call]:
        """The calls still to be done, each by itself."""
        calls = []
        for operation, future in zip(self.operations, self.futures, strict=True):
            if not future.done():
                call = Call(*operation, self.deadline, future)
                call.refusal = self.refusal
                calls.append(call)
        return calls

    def fill(self, operations: list[OperationTuple]) -> None:
        operations.extend(self.operations)

    def take(self, results: Sequence[ResultTuple]) -> Seen:
        if all_done(results):
            for future, result in zip(self.futures, results, strict=True):
                if not future.done():
                    future.set_result(result)
            return Seen.FINAL
        seen, final = Seen.NOTHING, False
        for future, result in zip(self.futures, results, strict=True):
            error = result[2]
            if error is not None:
                what = classify(error.code)
                if what is not Seen.FINAL:
                    self.refusal = error
                    seen |= what
                    continue
            final = True
            if not future.done():
                future.set_result(result)
        return seen | Seen.FINAL if final else seen

    def all_keys(self) -> Iterable[bytes]:
        return (operation[1] for operation in self.operations)

    def shrink(self) -> None:
        raise AssertionError("what goes wrong with a burst goes on as its calls")

    def fail(self, error: kv_pb2.Error) -> None:
        for future in self.futures:
            if not future.done():
                future.set_result((0, b"", error))
