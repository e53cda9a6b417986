"""A follower's side of replication: find the leader, cut what it does not have, follow, promise, acknowledge."""

from collections import deque

from kvcoord.contract import RunId
from kvnode.core.common import Common
from kvnode.core.effects import Close, Dial, ReadState, Rebuild, Send
from kvnode.core.messages import (
    Ack,
    Append,
    Compacted,
    Go,
    Hello,
    Leave,
    Message,
    Passed,
    Refuse,
    RefuseReason,
    Welcome,
)

NEVER = float("-inf")
OLD_COPY = "its disk is an older copy: it knows nothing of an epoch that this replica has led"


class Following:
    """The follower's state; it lives as long as the process, and is idle while the replica claims or leads."""

    def __init__(self, common: Common) -> None:
        self.common = common
        self.dialing: RunId | None = None
        self.conn: int | None = None
        self.leader: RunId | None = None  # who is at the other end of `conn`
        self.epoch = 0  # of the leader that welcomed us on `conn`; 0: not yet
        self.dial_at = NEVER
        self.heard = 0
        self.heard_at = NEVER
        self.number = 0
        self.asked: deque[tuple[int, float]] = deque()
        self.known_commit = 0
        self.fresh: deque[tuple[int, float]] = deque()  # (commit index to be applied, as fresh as this time)
        self.fresh_at = NEVER
        self.promised_to: RunId | None = None
        self.promise_until = NEVER
        self.told_to_go: tuple[int, RunId] | None = None  # the epoch and run that handed over to us
        self.stranger = False
        self.old_copy = False  # a stranger because its disk is an older copy of itself
        self.strange_in = 0  # the epoch accepted when it turned out to be one
        self.leaving = False
        self.broken = False
        self.rebuilding = False
        self.refused: RefuseReason | None = None  # why the last leader asked would not have this replica
        self.low = False  # on disk space: in sync it stays, as far as it can, otherwise it follows nobody

    # --- the connection ----------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Dial the leader when there is one to follow; give up a connection that has gone silent."""
        timing = self.common.config.timing
        if self.conn is not None and (now - self.heard_at > 2 * timing.lease or self._full):
            self.drop(now)
        state = self.common.state
        if state is None or state.leader is None or state.leader == self.common.config.me:
            return
        if self.conn is not None and self.leader != state.leader and self.epoch < state.epoch:
            self.drop(now, wait=False)  # another leads by now
        due = now >= self.dial_at and not self._full
        if self.conn is None and self.dialing is None and due and self.common.settled:
            self.dialing = state.leader
            self.common.emit(Dial(state.leader))

    def dialed(self, conn: int, to: RunId, now: float) -> None:
        """The connection is up: say hello, if it is still whom we want."""
        self.dialing = None
        state = self.common.state
        if state is None or state.leader != to or not self.common.settled or self.conn is not None:
            self.common.emit(Close(conn))
            return
        self.conn, self.leader, self.epoch = conn, to, 0
        self.heard, self.heard_at, self.number = 0, now, 0
        self.asked.clear()
        self.fresh.clear()
        common, config = self.common, self.common.config
        common.emit(
            Send(
                conn,
                Hello(
                    cluster_id=config.cluster_id,
                    partition=config.partition,
                    sender=config.me,
                    to=to,
                    epoch=common.meta.accepted_epoch,
                    end=common.end,
                    commit=common.commit,
                    epochs=tuple(common.epochs),
                    lease=config.timing.lease,
                ),
            )
        )

    def dial_failed(self, now: float) -> None:
        """Try again a little later."""
        self.dialing = None
        self.dial_at = now + self.common.config.retry

    def disconnected(self, conn: int, now: float) -> None:
        """The connection ended; the promise stands."""
        if conn == self.conn:
            self.conn, self.epoch = None, 0
            self.dial_at = now + self.common.config.retry

    def drop(self, now: float, *, wait: bool = True) -> None:
        """End the connection ourselves."""
        if self.conn is not None:
            self.common.emit(Close(self.conn))
            self.conn, self.epoch = None, 0
            self.dial_at = now + (self.common.config.retry if wait else 0.0)

    # --- messages ----------------------------------------------------------------------------------------------------

    def received(self, conn: int, message: Message, now: float) -> None:
        """A message from the leader; one of an older epoch, or out of place, ends the connection."""
        if conn != self.conn:
            self.common.emit(Close(conn))
            return
        self.heard_at = now
        if isinstance(message, Append) and message.epoch == self.epoch:
            self._append(message, now)
        elif isinstance(message, Welcome) and self.epoch == 0:
            self._welcome(conn, message, now)
        elif isinstance(message, Refuse):
            self._refused(message, now)
        elif isinstance(message, Go) and message.epoch == self.epoch and message.run == self.leader:
            self.told_to_go = (message.epoch, message.run)  # the promise to this run is void (rule 6)
        elif isinstance(message, Compacted) and message.epoch == self.epoch:
            self.common.inherit(message.horizon, message.purged_to)
        elif isinstance(message, Passed) and message.epoch == self.epoch:
            self.common.passed = max(self.common.passed, message.index)
        else:
            self.drop(now)

    def _welcome(self, conn: int, welcome: Welcome, now: float) -> None:
        common = self.common
        if welcome.epoch < common.meta.accepted_epoch or welcome.parting.index > common.end.index:
            common.emit(ReadState())
            self.drop(now)
            return
        torn_copy = welcome.parting != common.end and welcome.parting.index < common.horizon
        if welcome.parting.index < common.commit or torn_copy:  # rule 15: never cut that; rebuilt once excluded
            self._become_stranger()
            common.emit(Send(conn, Leave(welcome.epoch, broken=True)))
            self.drop(now)
            return
        common.accept_epoch(welcome.epoch)
        if welcome.parting != common.end:
            common.cut(welcome.parting)
        self.epoch, self.refused = welcome.epoch, None
        # A leader's word is of its own log: what the last one said may not be in this one's yet.
        self.known_commit = common.commit
        self._ack(now)
        if self.leaving or self.broken or self.low:
            self.leave()

    def _refused(self, refuse: Refuse, now: float) -> None:
        self.drop(now)
        self.refused = refuse.reason
        if refuse.reason is RefuseReason.STRANGER:
            self._become_stranger()
        elif refuse.reason is RefuseReason.BEHIND and self.leader is not None:
            self.told_to_go = (refuse.epoch, self.leader)
        else:
            self.common.emit(ReadState())

    def outlived(self) -> None:
        """The disk is an older copy of what this replica had when it led."""
        self.old_copy = True
        self._become_stranger()

    def _become_stranger(self) -> None:
        self.stranger, self.strange_in = True, self.common.meta.accepted_epoch

    def _append(self, message: Append, now: float) -> None:
        common = self.common
        if message.prev != common.end:  # rule 12
            self.drop(now)
            return
        self.heard = message.sequence
        self.promised_to = self.leader
        self.promise_until = max(self.promise_until, now + common.config.timing.lease)  # from receipt (rule 5)
        for batch in message.batches:
            if batch.first != common.end.index + 1 or not common.end.epoch <= batch.epoch <= self.epoch:  # rule 12
                self.drop(now)
                return
            common.append(batch)
        self.known_commit = max(self.known_commit, message.commit)
        self._note_freshness(message)
        self._apply()
        if not message.batches or common.settled:
            self._ack(now)

    def written(self, now: float) -> None:
        """More of the log is durable: say so."""
        self._apply()
        if self.conn is not None and self.epoch:
            self._ack(now)

    def _ack(self, now: float) -> None:
        assert self.conn is not None
        if self.broken:
            return
        self.number += 1
        self.asked.append((self.number, now))
        self.common.emit(Send(self.conn, Ack(self.epoch, self.number, self.heard, self.common.durable)))

    def leave(self) -> None:
        """Ask the leader to take this replica out of the in-sync set."""
        if self.conn is not None and self.epoch:
            self.common.emit(Send(self.conn, Leave(self.epoch, self.broken)))

    def _apply(self) -> None:
        if self.known_commit > self.common.commit:
            self.common.commit_to(min(self.known_commit, self.common.end.index), enough=True)
        newest = self.common.epochs[-1] if self.common.epochs else None
        if self.stranger and newest and newest.epoch > self.strange_in and self.common.commit >= newest.first:
            self.stranger = self.old_copy = False  # a later leader counted it in: it has all that is committed again
        while self.fresh and self.fresh[0][0] <= self.common.commit:
            self.fresh_at = max(self.fresh_at, self.fresh.popleft()[1])

    def _note_freshness(self, message: Append) -> None:
        """What a leaseholder says is committed is no older than our own question that it had before (rule 5)."""
        asked_at = NEVER
        while self.asked and self.asked[0][0] <= message.echo:
            asked_at = self.asked.popleft()[1]
        if message.leased and asked_at > NEVER:
            self.fresh.append((message.commit, asked_at))

    def rebuild_if_excluded(self) -> None:
        """A replica that lost what it had starts anew, but never while the state counts on it."""
        if (self.stranger or self.broken) and self.common.state is not None and not self.common.in_sync:
            self.rebuilding = True
            why = "its disk failed" if self.broken else self.why_strange
            self.common.emit(Rebuild(f"{self.common.replica}: {why}"))

    @property
    def why_strange(self) -> str:
        """What makes it a stranger."""
        return OLD_COPY if self.old_copy else "it has less than it acknowledged, or more than was committed"

    @property
    def _full(self) -> bool:
        return self.low and not self.common.in_sync

    def disk_space(self, now: float, *, low: bool) -> None:
        """Ask to be taken out before a write fails; with space again, begin anew with the leader."""
        if low and not self.low:
            self.leave()
        elif self.low and not low:
            self.drop(now, wait=False)
        self.low = low
