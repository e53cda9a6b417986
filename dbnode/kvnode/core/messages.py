"""What replicas of one partition say to each other. A follower dials its leader; frames are in kvnode.shell.wire.

Every message carries the sender's epoch; within a connection messages arrive in order or the connection ends.
"""

from enum import IntEnum

from kvcommon.values import value
from kvcoord.contract import RunId
from kvnode.core.types import Batch, EpochStart, Position


@value()
class Hello:
    """Follower's first: who I am, whom I mean, and where my log stands, all of it durable (rules 12, 13)."""

    cluster_id: str
    partition: int
    sender: RunId
    to: RunId
    epoch: int  # highest accepted
    end: Position
    commit: int
    epochs: tuple[EpochStart, ...]
    lease: float  # seconds that the sender promises for; the leader counts on the same (rule 5)


@value()
class Welcome:
    """Leader's answer: our logs are the same up to `parting`; cut what is after it, and follow."""

    epoch: int
    parting: Position
    commit: int


class RefuseReason(IntEnum):
    """Why a leader does not take a follower."""

    NOT_LEADER = 1  # read the state again
    WRONG_ADDRESS = 2  # cluster, partition or run is another's: addresses are reused
    STRANGER = 3  # in sync by name, but with less than it acknowledged (rule 17)
    OTHER_LEASE = 4  # it promises for another time than the leader counts on (rule 5)
    BEHIND = 5  # a restarted leader has less than this in-sync replica: as with Go, it never serves in this epoch


@value()
class Refuse:
    """Leader's other answer; the connection ends."""

    epoch: int
    reason: RefuseReason


@value()
class Append:
    """Batches that follow `prev` (none: a heartbeat), and what the leader knows to be committed.

    `echo` is the number of the newest Ack the leader had, and `leased` whether its lease was valid when it sent this:
    together they let the follower prove how fresh its reads are, by its own clock (rule 5).
    """

    epoch: int
    sequence: int  # of this message on this connection, from 1
    prev: Position
    commit: int
    batches: tuple[Batch, ...]
    echo: int
    leased: bool


@value()
class Ack:
    """Follower to leader: heard up to message `heard`, log durable to index `durable`.

    It is also the promise not to claim for a lease from the receipt of message `heard` (rule 5).
    """

    epoch: int
    number: int  # of this Ack on this connection, from 1
    heard: int
    durable: int


@value()
class Go:
    """Leader to the in-sync follower whose end equals its own: claim now; I never serve in this epoch again (rule 6)."""

    epoch: int
    run: RunId


@value()
class Leave:
    """Follower to leader: I am going; take me out of the in-sync set. `broken`: my disk failed me (rule 4)."""

    epoch: int
    broken: bool


@value()
class Compacted:
    """Leader to follower, before batches at or below its horizon: what my log has lost is lost to you, too.

    Until `horizon` is reached the follower has a prefix of nothing (rule 14). Deletes up to `purged_to` may be missing:
    only who had them all, or nothing, may follow (rule 16).
    """

    epoch: int
    horizon: int
    purged_to: int


@value()
class Passed:
    """Leader to follower: every replica of the partition, absent ones included, has its log durably up to `index`."""

    epoch: int
    index: int


Message = Hello | Welcome | Refuse | Append | Ack | Go | Leave | Compacted | Passed
