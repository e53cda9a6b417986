"""Work becomes records: conditions are judged on the index overlaid with what is appended and not committed (rule 9)."""

from collections import deque
from collections.abc import Sequence

from kvcommon.versions import MAX_TAKEN, VersionClock
from kvnode.operations import Code, Columns, Kind, Operation, Outcome, Request, Written
from kvnode.reading import MAX_ANSWER_BYTES, TOO_LONG, DamagedError, Reads
from kvnode.sessions import encode_outcomes
from kvnode.work import Pending, Puts, Transaction, Work
from kvstore.making import BatchMaker
from kvstore.sessions import session_key

# Plain numbers for what is compared with every operation: comparing an IntEnum's member costs five times as much.
_GET, _PUT, _DELETE, _OK = int(Kind.GET), int(Kind.PUT), int(Kind.DELETE), int(Code.OK)

MAX_LOG_BATCH_BYTES = 4 << 20
FEW_PUTS = 4  # below this number columns cost more than they save


class LogBatch:
    """A log batch that is being made, or appended and not committed."""

    __slots__ = ("_changes", "_columns", "_made", "begun", "last", "waiting")

    def __init__(self, made: BatchMaker) -> None:
        self.waiting: list[Work] = []
        self.last = 0  # its last index
        self.begun = 0.0  # when it was appended
        self._made: BatchMaker | None = made
        self._changes: dict[bytes, tuple[int, bytes | None]] = {}
        self._columns: list[tuple[Sequence[bytes], range, Sequence[bytes]]] = []  # still to be put into it

    @property
    def changes(self) -> dict[bytes, tuple[int, bytes | None]]:
        """What it makes of its keys: version and value, None when deleted. Made when somebody asks, as few do."""
        if self._columns:
            for keys, versions, values in self._columns:
                self._changes.update(zip(keys, zip(versions, values, strict=True), strict=True))
            self._columns.clear()
        return self._changes

    def put(self, key: bytes, value: bytes, version: int) -> None:
        """Add a write of a key."""
        self.changes[key] = (version, value)
        self.made.put(key, value, version)

    def put_all(self, keys: Sequence[bytes], values: Sequence[bytes], first_version: int) -> range:
        """Add writes with versions that follow each other, and return those: in columns, as most writes are these."""
        versions = range(first_version, first_version + len(keys))
        self._columns.append((keys, versions, values))
        self.made.put_all(keys, values, first_version)
        return versions

    def delete(self, key: bytes, version: int) -> None:
        """Add a deletion."""
        self.changes[key] = (version, None)
        self.made.delete(key, version)

    @property
    def made(self) -> BatchMaker:
        """Its records, while it is being made."""
        assert self._made is not None
        return self._made

    def appended(self, begun: float) -> None:
        """It is in the log now."""
        self.last, self.begun = self.made.last, begun
        self._made = None


class Evaluation:
    """Makes one log batch after the other; `in_flight` are those that are appended and not committed, oldest first."""

    def __init__(self, reads: Reads, versions: VersionClock, in_flight: deque[LogBatch]) -> None:
        self._reads, self._versions, self._in_flight = reads, versions, in_flight
        self._nothing = self._making = LogBatch(BatchMaker(0, 0, 0))

    def begin(self, epoch: int, first: int, commit: int) -> LogBatch:
        """The batch, from index `first` on, that `add` fills from now on."""
        self._making = LogBatch(BatchMaker(epoch, first, commit))
        return self._making

    def end(self) -> None:
        """The batch is full: it is the caller's now."""
        self._making = self._nothing

    def add(self, work: Work, wall: int) -> None:
        """Decide what comes of the work, and add the records that it makes. `wall`: milliseconds of the time of day."""
        if isinstance(work, Pending):
            self._request(work, wall)
        elif isinstance(work, Puts):
            self._puts(work, wall)
        elif isinstance(work, Transaction):
            self._transaction(work, wall)
        self._making.waiting.append(work)

    # --- clients' batches --------------------------------------------------------------------------------------------

    def _request(self, pending: Pending, wall: int) -> None:
        """Each operation's outcome, in their order."""
        request: Request = pending.request
        if request.observed:
            self._versions.observe(request.observed)
        operations = request.operations
        if type(operations) is Columns and operations.kind == _PUT and len(operations) >= FEW_PUTS:
            # Nothing can refuse them.
            first = self._versions.take(len(operations), wall)
            pending.outcomes = Written(self._making.put_all(operations.keys, operations.values, first))
        else:
            pending.outcomes = self._each(operations, wall)
        if request.pair is not None:  # also when all was refused: a late repeat must not be done after all
            result = encode_outcomes(operations, pending.outcomes)
            self._making.made.session(session_key(*request.pair), result, self._versions.next(wall))

    def _each(self, operations: Sequence[Operation], wall: int) -> list[Outcome]:
        outcomes: list[Outcome] = []
        read = 0
        for kind, key, value, expected in operations:
            if kind == _GET and read >= MAX_ANSWER_BYTES:
                outcomes.append(TOO_LONG)
                continue
            if kind != _PUT or expected is not None:
                refused = self._condition(kind, key, expected)
                if refused is not None:
                    read += len(refused[2])
                    outcomes.append(refused)
                    continue
            version = self._versions.next(wall)
            if kind == _DELETE:
                self._making.delete(key, version)
            else:
                self._making.put(key, value, version)
            outcomes.append(Outcome(_OK, version))
        return outcomes

    def _condition(self, kind: int, key: bytes, expected: int | None) -> Outcome | None:
        """A Get's outcome, or why a write is refused; None: it may go on."""
        over = self._overlaid(key)
        if over is not None:
            found, value = over if over[1] is not None else (0, b"")
        else:
            try:
                record = self._reads.record(key)
            except DamagedError as e:
                return e.outcome
            found, value = (record[3], record[2]) if record is not None else (0, b"")
        if kind == _GET:
            return Outcome(_OK, found, value or b"") if found else Outcome(Code.NOT_FOUND)
        if kind == Kind.CREATE and found:
            return Outcome(Code.ALREADY_EXISTS, found)
        if kind in (Kind.UPDATE, Kind.DELETE) and not found:
            return Outcome(Code.NOT_FOUND)
        if expected is not None and expected != found:
            return Outcome(Code.VERSION_MISMATCH, found, message=f"expected version {expected}, found {found}")
        return None

    def _overlaid(self, key: bytes) -> tuple[int, bytes | None] | None:
        """What the newest of the batches being made and in flight makes of a key; None: nothing (rule 9)."""
        over = self._making.changes.get(key)
        if over is None:
            for batch in reversed(self._in_flight):
                over = batch.changes.get(key)
                if over is not None:
                    break
        return over

    # --- single writes and atomic groups -----------------------------------------------------------------------------

    def _puts(self, puts: Puts, wall: int) -> None:
        if len(puts.keys) < FEW_PUTS:
            for key, value in zip(puts.keys, puts.values, strict=True):
                self._making.put(key, value, self._versions.next(wall))
            return
        for at in range(0, len(puts.keys), MAX_TAKEN):
            keys, values = puts.keys[at : at + MAX_TAKEN], puts.values[at : at + MAX_TAKEN]
            self._making.put_all(keys, values, self._versions.take(len(keys), wall))

    def _transaction(self, work: Transaction, wall: int) -> None:
        """Let it decide on index and overlay, and add the records that it makes: all of them in this batch, or none."""
        try:
            writes, work.result = work.decide(self._read)
        except DamagedError as e:
            work.refused = e.outcome
            return
        size = sum(len(key) + len(value or b"") for key, value in writes)
        if size > MAX_LOG_BATCH_BYTES:
            text = f"an atomic group of {size} bytes; at most {MAX_LOG_BATCH_BYTES} are possible"
            work.refused = Outcome(Code.INVALID_ARGUMENT, message=text)
            return
        work.size = max(work.size, size)  # what it made of what was there is in memory until it is committed
        for key, value in writes:
            version = self._versions.next(wall)
            if value is None:
                self._making.delete(key, version)
            else:
                self._making.put(key, value, version)

    def _read(self, key: bytes) -> bytes | None:
        """A key's value as of the end of the log. Raises DamagedError."""
        over = self._overlaid(key)
        if over is not None:
            return over[1]
        record = self._reads.record(key)
        return None if record is None else record[2]
