"""What this replica may show, and shows: its fitness for a read, and the record of a key (rule 5)."""

from collections.abc import Callable, Sequence
from typing import cast

from kvcommon.clock import Clock
from kvcommon.errors import KVClusterError
from kvcommon.versions import version_partition
from kvnode.core.types import Role
from kvnode.operations import Code, Columns, Found, Kind, Outcome, ReadMode, Request
from kvnode.shell.host import Host
from kvstore.batch import Record
from kvstore.errors import StoreError
from kvstore.store import Store

MAX_ANSWER_BYTES = 4 << 20  # of values in the answer to one request; what is beyond is refused

TOO_LONG = Outcome(
    Code.RESOURCE_EXHAUSTED, message=f"the answer's values are beyond {MAX_ANSWER_BYTES} bytes; ask for fewer at once"
)
_OK = int(Code.OK)


class RefusedError(KVClusterError):
    """A read can't be done here; `outcome` is the answer."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.message)
        self.outcome = outcome


class DamagedError(RefusedError):
    """A read failed because this replica's log can't be read."""


class Reads:
    """Reads of one replica. `closing` says whether the node is about to end: then it calls itself no leader."""

    def __init__(self, host: Host, *, closing: Callable[[], bool]) -> None:
        self._host = host
        self._core = host.core
        self._store: Store = host.store
        self._clock: Clock = host.clock
        self._closing = closing

    def answer(self, request: Request) -> Sequence[Outcome]:
        """The outcomes of a request of Gets alone."""
        unfit = self.unfit(request)
        if unfit is not None:
            return [unfit] * len(request.operations)
        if type(request.operations) is Columns:
            found = self._all(request.operations.keys)
            if found is not None:
                return found
        outcomes: list[Outcome] = []
        size = 0
        for op in request.operations:
            outcome = self.get(op[1]) if size < MAX_ANSWER_BYTES else TOO_LONG
            size += len(outcome[2])
            outcomes.append(outcome)
        return outcomes

    def _all(self, keys: Sequence[bytes]) -> Found | None:
        """The keys' records, if each has one, they can be read, and one answer may hold them."""
        try:
            records = self._store.get_many(keys)
        except (StoreError, OSError):
            return None  # what is wrong is said where each is read by itself
        if None in records:
            return None
        found = cast("list[Record]", records)
        values = [record[2] for record in found]
        if sum(map(len, values)) > MAX_ANSWER_BYTES:
            return None
        return Found([record[3] for record in found], values)

    def answer_again(self, request: Request, before: Sequence[Outcome | None]) -> list[Outcome]:
        """A repeat's outcomes. A Get is read again, unless the batch wrote its key afterwards: it would see that."""
        unfit, operations = self.unfit(request), request.operations
        outcomes: list[Outcome] = []
        for i, (op, out) in enumerate(zip(operations, before, strict=True)):
            if out is not None:
                outcomes.append(out)
            elif unfit is not None:
                outcomes.append(unfit)
            elif any(later[1] == op[1] and later[0] != Kind.GET for later in operations[i + 1 :]):
                text = "the batch was applied before; what this key held before it can't be read again"
                outcomes.append(Outcome(Code.UNAVAILABLE, message=text))
            else:
                outcomes.append(self.get(op[1]))
        return outcomes

    def unfit(self, request: Request) -> Outcome | None:
        """Why this replica can't read as fresh as asked; `now` is taken after the request was read (rule 5)."""
        now = self._clock.now()
        if self._core.role is Role.FAILED:
            return Outcome(Code.UNAVAILABLE, message="this replica failed and waits to be rebuilt; ask another")
        leased = now < self._core.lease_until
        if request.read_mode == ReadMode.LINEARIZABLE:
            return None if leased else self.not_serving("reads")
        if leased:
            return None
        if not self._core.whole:
            return Outcome(
                Code.UNAVAILABLE, message="this replica has only a part of its leader's log yet; ask another"
            )
        if self._may_lack(request.observed):
            return Outcome(Code.TOO_STALE, message="this replica may not have applied observed_version yet")
        if request.read_mode == ReadMode.BOUNDED and now - self._core.fresh_at > request.max_lag:
            text = f"this replica can't show that it is within {request.max_lag * 1000:.0f} ms of its leader"
            return Outcome(Code.TOO_STALE, message=text)
        return None

    def _may_lack(self, observed: int) -> bool:
        """Whether a version of this partition may be one that is not applied here."""
        if not observed or version_partition(observed) != self._host.config.partition:
            return False
        highest = self._store.highest_version  # of what was cut, too, until something newer was appended
        unsure = observed > highest or highest <= self._host.cut_version
        return unsure or self._store.applied < self._core.end.index

    def get(self, key: bytes) -> Outcome:
        """A Get's outcome, of what is applied."""
        try:
            record = self._store.get(key)
        except (StoreError, OSError) as e:
            return self._damaged(e)
        return Outcome(Code.NOT_FOUND) if record is None else Outcome(_OK, record[3], record[2])

    def record(self, key: bytes) -> Record | None:
        """A key's record, as applied; None: it has none. Raises DamagedError, and this replica then goes."""
        try:
            return self._store.get(key)
        except (StoreError, OSError) as e:
            raise self.damage(e) from e

    def damage(self, error: Exception) -> DamagedError:
        """What is raised when the log can't be read; this replica then goes."""
        return DamagedError(self._damaged(error))

    def _damaged(self, error: Exception) -> Outcome:
        """What is answered when the log can't be read; this replica then goes."""
        self._host.damaged(error)
        text = f"this replica's log can't be read; ask again, another will lead: {error}"
        return Outcome(Code.UNAVAILABLE, message=text)

    def not_serving(self, what: str) -> Outcome:
        """A leader that can't serve right now, or no leader."""
        if self._core.role is Role.LEADER and not self._closing():
            return Outcome(Code.UNAVAILABLE, message=f"the leader can't serve {what} right now; try again")
        return Outcome(Code.NOT_LEADER, message=f"{self._host.config.me.replica.pod} does not lead this partition")


LINEARIZABLE = Request([])
"""A read of nothing: whether linearizable reads can be served at all."""
