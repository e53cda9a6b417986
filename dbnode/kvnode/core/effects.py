"""What a replica wants done, in this order. Persist, Cut and Inherit are done before the next effect; the rest may take time."""

from kvcommon.values import value
from kvcoord.contract import PartitionState, RunId
from kvnode.core.messages import Message
from kvnode.core.types import Batch, Meta, Position, Role


@value()
class Persist:
    """Sync this to disk before anything that follows."""

    meta: Meta


@value()
class Cut:
    """Remove what is after this position from the log, durably, before anything that follows."""

    after: Position


@value()
class Write:
    """Append the batch to the log; answer Written once it is durable. Several may be answered by one."""

    batch: Batch


@value()
class Inherit:
    """Sync, before anything that follows, that the log is not whole: its next batches come from a compacted one.

    Below `horizon` it folds to no state that ever was (rule 14); deletes up to `purged_to` may be missing (rule 16).
    """

    horizon: int
    purged_to: int


@value()
class Send:
    """Send a message on a connection; silently nothing when it is gone."""

    conn: int
    message: Message


@value()
class Dial:
    """Connect to the replication port of this run; answer Dialed or DialFailed."""

    to: RunId


@value()
class Close:
    """End a connection, after what was sent on it."""

    conn: int


@value()
class CompareAndSet:
    """Set the partition's state if its version is still this; answer CasAnswered."""

    expected_version: int
    state: PartitionState


@value()
class ReadState:
    """Read the partition's state from coordination now; answer StateSeen (nothing when it can't be asked).

    The answer to a read with a number bears it, and is of no earlier moment than this effect's.
    """

    number: int = 0


@value()
class ReadLog:
    """Read batches after this index from the own log, a few megabytes at most; answer LogRead."""

    conn: int
    after: int


@value()
class OpenEpoch:
    """This run leads `epoch`: make its first record and step Proposed(internal=True) with it, next."""

    epoch: int


@value()
class Committed:
    """Everything up to `index` is committed: apply it, then answer those who wait for it.

    `enough`: at least minInSync replicas have it durably; otherwise the answer is "outcome unknown" (rule 8).
    """

    index: int
    enough: bool


@value()
class RoleChanged:
    """The role or the epoch changed. Whoever waits for a commit in an earlier epoch gets "outcome unknown"."""

    role: Role
    epoch: int


@value()
class Rebuild:
    """Take a new incarnation, synced before anything is wiped, then start again from empty (rules 4, 15, 17)."""

    reason: str


Effect = (
    Persist | Cut | Inherit | Write | Send | Dial | Close | CompareAndSet | ReadState | ReadLog | OpenEpoch | Committed
    | RoleChanged | Rebuild
)  # fmt: skip
