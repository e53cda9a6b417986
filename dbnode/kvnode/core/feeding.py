"""How a leader sends its log: to a follower that is behind from the log, otherwise each batch as it is proposed."""

from kvcoord.contract import ReplicaId
from kvnode.core.common import Common
from kvnode.core.effects import Close, ReadLog, Send
from kvnode.core.events import LogRead
from kvnode.core.follower import NEVER, Follower
from kvnode.core.messages import Append, Compacted, Refuse, RefuseReason
from kvnode.core.types import Batch


class Feeding:
    """The part of `Leading` that sends batches."""

    common: Common
    epoch: int
    followers: dict[ReplicaId, Follower]
    by_conn: dict[int, ReplicaId]
    gone: set[ReplicaId]
    copies: dict[ReplicaId, int]
    effective: tuple[ReplicaId, ...]
    lease_until: float = NEVER

    @property
    def opened(self) -> bool:
        raise NotImplementedError

    def disconnected(self, conn: int) -> None:
        raise NotImplementedError

    def log_read(self, read: LogRead, now: float) -> None:
        """Batches for a follower that is not live came from the log."""
        follower = self._follower(read.conn)
        if follower is None:
            return
        follower.reading = False
        if not read.batches or read.after != follower.sent.index:
            return
        if not self._knows_deletes(follower.run.replica, read):
            self._turn_away(follower)
            return
        if read.after < read.horizon:
            self.common.emit(Send(read.conn, Compacted(self.epoch, read.horizon, read.purged_to)))
        self._send_append(follower, read.batches, now)
        self._feed(follower)

    def _knows_deletes(self, replica: ReplicaId, read: LogRead) -> bool:
        """Whether a follower has, or will get, the delete of all that it has and that is deleted (rule 16).

        Not if deletes are gone beyond what it has; unless all of that came from this log, after they went.
        """
        if not read.after:
            self.copies[replica] = read.purges
        return read.after == 0 or read.after >= read.purged_to or 0 <= read.purges == self.copies.get(replica)

    def _turn_away(self, follower: Follower) -> None:
        """Have a follower rebuilt from empty."""
        replica = follower.run.replica
        if replica in self.effective:
            self.gone.add(replica)
        self._refuse(follower.conn, RefuseReason.STRANGER)
        self.disconnected(follower.conn)

    def _feed(self, follower: Follower) -> None:
        if follower.live or follower.reading or follower.unacked_bytes >= self.common.config.window:
            return
        if follower.sent.index == self.common.end.index:
            follower.live = True
        else:
            follower.reading = True
            self.common.emit(ReadLog(follower.conn, follower.sent.index))

    def _send_append(self, follower: Follower, batches: tuple[Batch, ...], now: float) -> None:
        follower.sequence += 1
        message = Append(
            epoch=self.epoch,
            sequence=follower.sequence,
            prev=follower.sent,
            commit=self.common.commit,
            batches=batches,
            echo=follower.echo,
            leased=self.opened and now < self.lease_until and not self.common.stopped,
        )
        follower.sent_at = now
        follower.sent_commit = self.common.commit
        follower.sent_times.append((follower.sequence, now))
        if batches:
            size = sum(len(b.data) for b in batches)
            follower.sent = batches[-1].end
            follower.unacked.append((batches[-1].last, size, now))
            follower.unacked_bytes += size
        self.common.emit(Send(follower.conn, message))

    def _refuse(self, conn: int, reason: RefuseReason) -> None:
        self.common.emit(Send(conn, Refuse(self.epoch, reason)))
        self.common.emit(Close(conn))

    def _follower(self, conn: int) -> Follower | None:
        replica = self.by_conn.get(conn)
        return None if replica is None else self.followers[replica]
