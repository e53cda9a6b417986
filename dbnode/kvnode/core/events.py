"""What happens to a replica. `conn` numbers a connection, unique in this run; the shell gives them out."""

from kvcommon.values import value
from kvcoord.contract import Death, Lost, PartitionState, RunId, Won
from kvnode.core.messages import Message
from kvnode.core.types import Batch, Position


@value()
class Tick:
    """Time passed. Expected every 50 ms or so."""


@value()
class StateSeen:
    """Coordination showed this state of the partition, by a watch or a read (with its number); None: there is none."""

    state: PartitionState | None
    version: int
    read: int = 0


@value()
class CasAnswered:
    """The compare-and-set that named `expected_version` was answered; None: no answer, it is "maybe" (rule 2)."""

    expected_version: int
    outcome: Won | Lost | None


@value()
class Dialed:
    """The connection asked for by Dial is up. The next message on it is this replica's Hello."""

    conn: int
    to: RunId


@value()
class DialFailed:
    """The connection asked for by Dial could not be made."""

    to: RunId


@value()
class Received:
    """A message arrived on a connection, dialed or accepted."""

    conn: int
    message: Message


@value()
class Disconnected:
    """A connection ended."""

    conn: int


@value()
class Proposed:
    """The shell of a leader made a batch: `batch.first == end.index + 1`, its epoch the leader's.

    `internal` batches (an epoch's first record) are exempt from minInSync (rule 8).
    """

    batch: Batch
    internal: bool = False


@value()
class Written:
    """The log is durable up to here (of what Write asked for)."""

    end: Position


@value()
class WriteFailed:
    """A write or fsync failed; it is never tried again (rule 4)."""

    reason: str


@value()
class LogRead:
    """The answer to ReadLog: batches that adjoin, the first of which follows `after`. Empty: nothing there yet.

    `horizon` and `purged_to` are the log's, as they were after the read: see `Inherit`. Two reads of one `purges` (not
    -1) are of a log that lost no delete between the first's beginning and the second's end.
    """

    conn: int
    after: int
    batches: tuple[Batch, ...]
    horizon: int = 0
    purged_to: int = 0
    purges: int = 0


@value()
class DeathReported:
    """The word of death came (rule 7)."""

    death: Death


@value()
class LeaveRequested:
    """This process is asked to end: hand leadership over, leave the in-sync set (see `Replica.may_exit`)."""


@value()
class HandOverRequested:
    """A person or the operator wants another leader; this replica stays a follower."""


@value()
class DiskSpace:
    """The disk has become too full to follow anyone (`low`), or has space again."""

    low: bool


Event = (
    Tick | StateSeen | CasAnswered | Dialed | DialFailed | Received | Disconnected | Proposed | Written | WriteFailed
    | LogRead | DeathReported | LeaveRequested | HandOverRequested | DiskSpace
)  # fmt: skip
