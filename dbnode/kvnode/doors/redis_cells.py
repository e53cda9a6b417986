"""Commands under way in the service, which are at the same time their places among a connection's replies."""

from typing import Protocol

from kvcommon.slots import slot_of
from kvnode.operations import Outcome
from kvnode.work import Puts, Transaction
from kvresp.connection import READ_COST, Connection
from kvresp.counts import Count
from kvresp.meaning import Plan
from kvresp.replies import OK, Error, encode, error


class Refusals(Protocol):
    """Who knows how an outcome is said."""

    def refusal(self, outcome: Outcome, slot: int) -> str:
        """The text of the error, its kind first."""
        ...


class PutsCell(Puts):
    """One or more plain SETs in a row, of one connection."""

    __slots__ = ("_connection", "_count", "_refusals", "cost", "reply")

    def __init__(  # noqa: PLR0917 - by position: one is made for every command
        self, connection: Connection, refusals: Refusals, count: Count, key: bytes, value: bytes, deadline: float
    ) -> None:
        self.cost = len(key) + len(value)
        super().__init__([(key, value)], self.cost, deadline)
        self._connection, self._refusals, self._count = connection, refusals, count
        self.reply: bytes | None = None

    def settle(self, refused: Outcome | None) -> None:
        if refused is None:
            self.reply = OK * len(self.pairs)
        else:
            self._count.errors += len(self.pairs)
            said = self._refusals.refusal
            self.reply = b"".join(error(said(refused, slot_of(key))) for key, _ in self.pairs)
        self._connection.completed()


class PlanCell(Transaction):
    """One command that reads and writes."""

    __slots__ = ("_connection", "_count", "_refusals", "_slot", "cost", "reply")

    def __init__(  # noqa: PLR0917 - by position: one is made for every command
        self, connection: Connection, refusals: Refusals, count: Count, plan: Plan, slot: int, deadline: float
    ) -> None:
        super().__init__(plan.decide, plan.size, deadline)
        self._connection, self._refusals, self._count, self._slot = connection, refusals, count, slot
        self.cost = plan.size + READ_COST * len(plan.keys)
        self.reply: bytes | None = None

    def settle(self, refused: Outcome | None) -> None:
        if refused is None:
            self._count.errors += isinstance(self.result, Error)
            self.reply = encode(self.result, self._connection.session.protocol)
        else:
            self._count.errors += 1
            self.reply = error(self._refusals.refusal(refused, self._slot))
        self._connection.completed()
