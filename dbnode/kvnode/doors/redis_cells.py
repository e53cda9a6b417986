"""Commands under way in the service, which are at the same time their places among a connection's replies."""

from collections.abc import Sequence
from typing import Protocol

from kvcommon.slots import slot_of
from kvnode.operations import Outcome
from kvnode.work import Puts, Transaction
from kvresp.connection import READ_COST, Connection, Ready
from kvresp.counts import Count
from kvresp.meaning import Plan
from kvresp.replies import OK, Error, encode, error


class Refusals(Protocol):
    """Who knows how an outcome is said."""

    def refusal(self, outcome: Outcome, slot: int) -> str:
        """The text of the error, its kind first."""
        ...


class PutsCell:
    """One or more plain SETs in a row, of one connection, which are queued in the same `puts`."""

    __slots__ = ("_connection", "_count", "_refusals", "cost", "keys", "puts", "reply")

    def __init__(  # noqa: PLR0917 - by position: one is made for every command
        self, connection: Connection, refusals: Refusals, count: Count, puts: Puts, key: bytes, cost: int
    ) -> None:
        self._connection, self._refusals, self._count = connection, refusals, count
        self.puts, self.keys, self.cost = puts, [key], cost
        self.reply: bytes | None = None

    def settle(self, refused: Outcome | None) -> None:
        """As kvnode.work.Work has it."""
        if refused is None:
            self.reply = OK if len(self.keys) == 1 else OK * len(self.keys)
        else:
            self._count.errors += len(self.keys)
            said = self._refusals.refusal
            self.reply = b"".join(error(said(refused, slot_of(key))) for key in self.keys)
        self._connection.completed()


class SharedCell:
    """A plain SET of each of many connections, which are queued in the same `puts`: they share their reply."""

    __slots__ = ("_connections", "_count", "_keys", "_refusals", "cost", "reply")

    def __init__(
        self,
        connections: Sequence[Connection],
        refusals: Refusals,
        count: Count,
        keys: Sequence[bytes],
        cost: int,
    ) -> None:
        self._connections, self._refusals, self._count = connections, refusals, count
        self._keys, self.cost = keys, cost
        self.reply: bytes | None = None

    def settle(self, refused: Outcome | None) -> None:
        """As kvnode.work.Work has it."""
        if refused is None:
            self.reply = OK
        else:
            self._count.errors += len(self._keys)
            for connection, key in zip(self._connections, self._keys, strict=True):
                connection.replace(self, Ready(error(self._refusals.refusal(refused, slot_of(key)))))
        for connection in self._connections:
            connection.completed()


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
