"""How a leader sends its log: to a follower that is behind from the log, otherwise each batch as it is proposed."""

from kvcoord.contract import ReplicaId
from kvnode.core.common import Common
from kvnode.core.effects import ReadLog, Send
from kvnode.core.events import LogRead
from kvnode.core.follower import Follower
from kvnode.core.messages import Append, Compacted
from kvnode.core.types import Batch


class Feeding:
    """What a leader sends of its log in one epoch. `leased`: whether it holds a lease now, which every message tells."""

    def __init__(self, common: Common, epoch: int) -> None:
        self.common, self.epoch = common, epoch
        self.copies: dict[ReplicaId, int] = {}  # `purges` of the log when a follower began to copy it from empty

    def log_read(self, follower: Follower, read: LogRead, now: float, *, leased: bool) -> bool:
        """Batches for a follower that is not live came from the log; False: it can't be fed, it has to be rebuilt."""
        follower.reading = False
        if not read.batches or read.after != follower.sent.index:
            return True
        if not self._knows_deletes(follower.run.replica, read):
            return False
        if read.after < read.horizon:
            self.common.emit(Send(read.conn, Compacted(self.epoch, read.horizon, read.purged_to)))
        self.send(follower, read.batches, now, leased=leased)
        self.go_on(follower)
        return True

    def _knows_deletes(self, replica: ReplicaId, read: LogRead) -> bool:
        """Whether a follower has, or will get, the delete of all that it has and that is deleted (rule 16).

        Not if deletes are gone beyond what it has; unless all of that came from this log, after they went.
        """
        if not read.after:
            self.copies[replica] = read.purges
        return read.after == 0 or read.after >= read.purged_to or 0 <= read.purges == self.copies.get(replica)

    def go_on(self, follower: Follower) -> None:
        """Read more for a follower that is behind, as far as its window allows."""
        if follower.live or follower.reading or follower.unacked_bytes >= self.common.config.window:
            return
        if follower.sent.index == self.common.end.index:
            follower.live = True
        else:
            follower.reading = True
            self.common.emit(ReadLog(follower.conn, follower.sent.index))

    def send(self, follower: Follower, batches: tuple[Batch, ...], now: float, *, leased: bool) -> None:
        """Batches, or none: a heartbeat."""
        follower.sequence += 1
        message = Append(
            epoch=self.epoch,
            sequence=follower.sequence,
            prev=follower.sent,
            commit=self.common.commit,
            batches=batches,
            echo=follower.echo,
            leased=leased,
        )
        follower.sent_at = now
        follower.sent_commit = self.common.commit
        follower.sent_times.append((follower.sequence, now))
        if batches:
            size = sum([len(b.data) for b in batches])
            follower.sent = batches[-1].end
            follower.unacked.append((batches[-1].last, size, now))
            follower.unacked_bytes += size
        self.common.emit(Send(follower.conn, message))
