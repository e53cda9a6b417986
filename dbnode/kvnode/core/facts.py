"""What a replica's shell and its service ask of it; nothing here changes anything."""

from kvcoord.contract import PartitionState, ReplicaId
from kvnode.core.common import Common
from kvnode.core.doubt import Loss
from kvnode.core.following import NEVER, Following
from kvnode.core.leading import Leading
from kvnode.core.messages import RefuseReason
from kvnode.core.types import Config, Meta, Position, Role


class Facts:
    """The side of a `Replica` that is read."""

    config: Config
    role: Role
    common: Common
    following: Following
    leading: Leading | None

    # What every request asks is worked out once a step.
    accepting = False
    """Whether writes may be proposed, minInSync aside."""
    enough = False
    """Whether enough replicas are in sync for writes."""
    lease_until = NEVER
    """Linearizable reads may be answered before this time (exclusive) from what is applied; rule 5."""

    def _work_out(self) -> None:
        """To be called at the end of a step."""
        leading = self.leading
        if leading is None:
            self.accepting, self.enough, self.lease_until = False, False, NEVER
        else:
            serving = leading.serving
            self.accepting, self.enough = serving and not leading.handing_over, leading.enough
            self.lease_until = leading.lease_until if serving else NEVER

    @property
    def state(self) -> PartitionState | None:
        """The newest state known."""
        return self.common.state

    @property
    def meta(self) -> Meta:
        """What is on disk, or about to be."""
        return self.common.meta

    @property
    def epoch(self) -> int:
        """The epoch led, or followed, or last accepted."""
        return self.leading.epoch if self.leading else self.common.meta.accepted_epoch

    @property
    def end(self) -> Position:
        """Where the log ends, durable or not."""
        return self.common.end

    @property
    def durable(self) -> int:
        return self.common.durable

    @property
    def commit(self) -> int:
        return self.common.commit

    @property
    def in_sync(self) -> bool:
        return self.common.in_sync

    @property
    def connected(self) -> bool:
        """A follower that its leader has welcomed."""
        return self.following.conn is not None and self.following.epoch > 0

    @property
    def whole(self) -> bool:
        """Whether what is applied is a state that ever was; not while a compacted log is being copied (rule 14)."""
        return self.common.whole

    @property
    def passed(self) -> int:
        """Every replica of the partition is known to have its log durably up to this index (rule 16)."""
        return self.common.passed

    @property
    def refused(self) -> RefuseReason | None:
        """Why the last leader that was asked would not have this replica follow it."""
        return self.following.refused

    @property
    def strange(self) -> str:
        """Why a replica that is in sync by name must not lead, for a person: its disk is not what it was (rule 17)."""
        following = self.following
        return following.why_strange if following.stranger and self.in_sync else ""

    @property
    def fresh_at(self) -> float:
        """A follower's applied state holds everything that was committed at this time (bounded reads)."""
        return self.following.fresh_at

    @property
    def loss(self) -> Loss | None:
        """Whether coordination's data was lost, or turned back (rule 19): this replica then acts on none of it."""
        return self.common.doubt.lost

    @property
    def may_exit(self) -> bool:
        """After LeaveRequested: nothing is gained by staying longer."""
        state = self.common.state
        if state is None or self.role is Role.FAILED:
            return True
        others = [r for r in state.in_sync if r != self.common.replica]
        if not self.common.in_sync or not others:
            return True
        return self.role is not Role.LEADER and not self._leads(state) and len(others) < max(1, state.min_in_sync)

    def _leads(self, state: PartitionState) -> bool:
        return state.leader == self.config.me

    @property
    def slow(self) -> dict[ReplicaId, float]:
        """In-sync replicas whose disks are far slower than another's, by their leader's measure: seconds a write takes."""
        if self.leading is None:
            return {}
        return {r: self.leading.paces.paces[r].mean for r in self.leading.paces.slow}

    def describe_in_sync(self) -> tuple[ReplicaId, ...]:
        """The in-sync set as the newest known state has it."""
        return self.common.state.in_sync if self.common.state else ()
