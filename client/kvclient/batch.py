"""Units that travel together, and what their callers are told when they can't be brought home: no decisions here."""

from collections.abc import Iterable
from operator import attrgetter
from typing import TYPE_CHECKING

from kvclient.units import Unit
from kvproto.pipeline import Request, ResultTuple
from kvproto.v1 import kv_pb2

if TYPE_CHECKING:
    from kvclient.lane import Lane

_DEADLINE = attrgetter("deadline")


class Batch:
    """Units that travel together. `maybe`: sent, and the answer was lost: it may have been applied."""

    __slots__ = ("count", "deadline", "first_sent", "foreign", "lane", "maybe", "request", "units")

    def __init__(self, lane: "Lane", units: list[Unit], request: Request, *, foreign: bool) -> None:
        self.lane = lane
        self.units = units
        self.request = request
        self.count = len(request.operations)
        self.deadline = max(map(_DEADLINE, units))
        self.foreign = foreign
        self.maybe = False
        self.first_sent: float | None = None

    @property
    def done(self) -> bool:
        """Whether nobody waits for it any more."""
        return all(unit.done for unit in self.units)


def all_invalid(results: Iterable[ResultTuple]) -> bool:
    """Whether the request as a whole was found wrong."""
    return all(error is not None and error.code == kv_pb2.ERROR_CODE_INVALID_ARGUMENT for _, _, error in results)


def last_refusal(unit: Unit) -> str:
    """Why a unit is not done yet, for the text of its error."""
    return f"last refusal: {unit.refusal.message}" if unit.refusal is not None else "no answer came"


def unknown_outcome(why: str) -> kv_pb2.Error:
    """What the callers of writes are told that were sent and not answered."""
    message = (
        f"the write may or may not have been applied, and that could not be found out in time ({why}); "
        "read the key before writing it again"
    )
    return kv_pb2.Error(code=kv_pb2.ERROR_CODE_OUTCOME_UNKNOWN, message=message)


def not_applied(unit: Unit, *, closed: bool) -> kv_pb2.Error:
    """What the caller is told of what was never sent, or only ever refused."""
    if closed:
        return kv_pb2.Error(code=kv_pb2.ERROR_CODE_UNAVAILABLE, message="the client was closed; not applied")
    message = f"the deadline passed and nothing was applied ({last_refusal(unit)}); try again, or allow more time"
    return kv_pb2.Error(code=kv_pb2.ERROR_CODE_DEADLINE_EXCEEDED, message=message)
