"""The leader of one epoch: replication, commit, lease, the in-sync set, hand-over."""

from dataclasses import replace

from kvcoord.contract import Death, Lost, PartitionState, ReplicaId, RunId, Won
from kvnode.core.common import Attempt, Common
from kvnode.core.effects import Close, ReadState, Send
from kvnode.core.events import LogRead
from kvnode.core.feeding import Feeding
from kvnode.core.follower import NEVER, Follower
from kvnode.core.messages import Ack, Go, Hello, Leave, Message, Passed, Refuse, RefuseReason, Welcome
from kvnode.core.pace import Paces
from kvnode.core.parting import next_epoch, parting
from kvnode.core.types import Batch, Position

PASSED_EVERY = 10.0  # seconds between two words about how far every replica is

ALWAYS = float("inf")


class Leading:
    """One epoch of leadership by this run."""

    def __init__(self, common: Common, state: PartitionState, now: float, *, restarted: bool = False) -> None:
        self.common = common
        self.restarted = restarted  # it led before, in an earlier run, and has followed nobody since
        self.epoch = state.epoch
        self.started = now
        self.first = common.end.index + 1  # of the epoch's first record
        self.followers: dict[ReplicaId, Follower] = {}
        self.by_conn: dict[int, ReplicaId] = {}
        self.runs: dict[ReplicaId, RunId] = {}
        self.acked: dict[ReplicaId, int] = {}
        self.promised: dict[ReplicaId, float] = {}  # when the newest acknowledged message was sent
        self.heard: dict[ReplicaId, float] = {}
        self.leaving: set[ReplicaId] = set()
        self.gone: set[ReplicaId] = set()  # dead by the kubelet's word, broken, or replaced by another incarnation
        self.joining: set[ReplicaId] = set()  # kept up; commit waits for them until they have all that is committed
        self.attempt: Attempt | None = None
        self.paces = Paces(now)
        self.passed_at = now
        self.feeding = Feeding(common, self.epoch)
        self.handing_over = False
        self.hand_over_until = ALWAYS  # when a hand-over that nobody asked for is given up
        self.handed_over = False
        self.deposed = False
        self.lease_until = NEVER
        self.effective: tuple[ReplicaId, ...] = ()
        self.enough = False
        """Whether what is committed now has minInSync durable copies (rule 8)."""
        self._lease = common.config.timing.leader_lease
        self._acknowledging: tuple[ReplicaId, ...] = ()  # others that commit waits for
        self._promising: tuple[ReplicaId, ...] = ()  # others whose promises make the lease
        self._recount()

    # --- what others ask ---------------------------------------------------------------------------------------------

    @property
    def state(self) -> PartitionState:
        state = self.common.state
        assert state is not None
        return state

    @property
    def opened(self) -> bool:
        """Whether the epoch's first record is committed: before that nothing is served."""
        return self.common.commit >= self.first

    @property
    def serving(self) -> bool:
        """Whether anything may be served, the lease aside."""
        return self.common.commit >= self.first and not self.common.stopped

    # --- the log -----------------------------------------------------------------------------------------------------

    def propose(self, batch: Batch, now: float) -> None:
        """Append a batch of this epoch and send it to every follower that has all before it."""
        before = self.common.end
        assert (batch.epoch, batch.first) == (self.epoch, before.index + 1), (batch.epoch, batch.first, before)
        leased = self._leased(now)
        for follower in self.followers.values():
            if follower.live:
                if follower.unacked_bytes < self.common.config.window:
                    self.feeding.send(follower, (batch,), now, leased=leased)
                else:
                    follower.live = False  # it is fed from the log again once it acknowledges
        self.common.append(batch)  # behind what is sent: the followers' way is longer
        self.paces.began(batch.last, now)

    def log_read(self, read: LogRead, now: float) -> None:
        """Batches for a follower that is not live came from the log."""
        follower = self._follower(read.conn)
        if follower is not None and not self.feeding.log_read(follower, read, now, leased=self._leased(now)):
            self._turn_away(follower)

    def _turn_away(self, follower: Follower) -> None:
        """Have a follower rebuilt from empty."""
        replica = follower.run.replica
        if replica in self.effective:
            self.gone.add(replica)
        self._refuse(follower.conn, RefuseReason.STRANGER)
        self.disconnected(follower.conn)

    def written(self, now: float) -> None:
        """More of the own log is durable."""
        self.paces.done(self.common.replica, self.common.durable, now)
        self._advance()

    # --- messages ----------------------------------------------------------------------------------------------------

    def received(self, conn: int, message: Message, now: float) -> None:
        """A message on a connection that a follower made."""
        if isinstance(message, Ack):
            self._ack(conn, message, now)
        elif isinstance(message, Hello):
            self._hello(conn, message, now)
        elif isinstance(message, Leave):
            replica = self.by_conn.get(conn)
            if replica is not None and message.epoch == self.epoch:
                (self.gone if message.broken else self.leaving).add(replica)
        else:
            self.common.emit(Close(conn))

    def disconnected(self, conn: int) -> None:
        """A follower's connection ended; its promise and its acknowledgements stand."""
        replica = self.by_conn.pop(conn, None)
        if replica is not None and self.followers[replica].conn == conn:
            del self.followers[replica]
            self._drop_joining(replica)

    def _follower(self, conn: int) -> Follower | None:
        replica = self.by_conn.get(conn)
        return None if replica is None else self.followers[replica]

    def _refuse(self, conn: int, reason: RefuseReason) -> None:
        self.common.emit(Send(conn, Refuse(self.epoch, reason)))
        self.common.emit(Close(conn))

    def _hello(self, conn: int, hello: Hello, now: float) -> None:
        common, config = self.common, self.common.config
        if (hello.cluster_id, hello.partition, hello.to) != (config.cluster_id, config.partition, config.me):
            self._refuse(conn, RefuseReason.WRONG_ADDRESS)
            return
        if hello.epoch > self.epoch:  # a newer epoch fences this one
            self.deposed = True
            common.emit(ReadState())
            self._refuse(conn, RefuseReason.NOT_LEADER)
            return
        if hello.lease < config.timing.lease:
            self._refuse(conn, RefuseReason.OTHER_LEASE)
            return
        if conn in self.by_conn:  # one follower to a connection
            common.emit(Close(conn))
            return
        replica = hello.sender.replica
        shared = parting(common.epochs, common.end, hello.epochs, hello.end)
        if self._is_behind(hello, shared):
            self.handed_over = True
            self._refuse(conn, RefuseReason.BEHIND)
            return
        for other in [r for r in self.state.in_sync if r.pod == replica.pod and r != replica]:
            self.gone.add(other)  # the pod says itself that its disk is another now
        self._drop_joining(replica)
        if replica not in self.effective:
            self.acked[replica] = min(self.acked.get(replica, 0), shared.index)  # it owed nobody what it had
        elif shared.index < max(self.acked.get(replica, 0), common.commit):
            self.gone.add(replica)  # it has less than it acknowledged (rule 17)
            self._refuse(conn, RefuseReason.STRANGER)
            return
        earlier = self.followers.get(replica)
        if earlier is not None:
            self.by_conn.pop(earlier.conn, None)
            common.emit(Close(earlier.conn))
        self.leaving.discard(replica)
        self.gone.discard(replica)
        self.runs[replica] = hello.sender
        self.heard[replica] = now
        self.by_conn[conn] = replica
        follower = Follower(conn, hello.sender, shared, round_target=common.commit, round_started=now)
        self.followers[replica] = follower
        common.emit(Send(conn, Welcome(self.epoch, shared, common.commit)))
        self.feeding.go_on(follower)

    def _is_behind(self, hello: Hello, shared: Position) -> bool:
        """Whether another in sync has what was acknowledged and is not here: the disk was turned back (rule 17).

        It knows that what is missing here is committed. Or this one led before, in an earlier run, and claimed without having
        met anybody: then so may be what it has not been told of yet. Where two logs part, the one that goes on in the older
        epoch may have records that were acknowledged; the other goes on with what a claim appended, which was never opened: it
        would have met the older ones. How far the logs go says nothing: a claim leads to the next.
        """
        if self.opened or hello.sender.replica not in self.state.in_sync:
            return False
        if hello.commit > shared.index:
            return True
        if not self.restarted:
            return False
        theirs = next_epoch(hello.epochs, hello.end, shared.index)
        ours = next_epoch(self.common.epochs, self.common.end, shared.index)
        return theirs is not None and (ours is None or theirs < ours)

    def _ack(self, conn: int, ack: Ack, now: float) -> None:
        follower = self._follower(conn)
        if follower is None:
            return
        if ack.epoch != self.epoch or ack.durable > self.common.end.index:
            self.common.emit(Close(conn))
            return
        replica = follower.run.replica
        if follower.live and follower.unacked and follower.unacked[0][0] <= ack.durable:
            self.paces.add(replica, now - follower.unacked[0][2], now)
        self.heard[replica] = now
        follower.echo = ack.number
        while follower.sent_times and follower.sent_times[0][0] <= ack.heard:
            sent_at = follower.sent_times.popleft()[1]  # the promise counts from the sending (rule 5)
            self.promised[replica] = max(sent_at, self.promised.get(replica, NEVER))
        while follower.unacked and follower.unacked[0][0] <= ack.durable:
            follower.unacked_bytes -= follower.unacked.popleft()[1]
        if ack.durable > self.acked.get(replica, 0):
            self.acked[replica] = ack.durable
        if not follower.caught_up:
            self._measure_round(follower, ack.durable, now)
        self._renew_lease()
        self._advance()
        if not follower.live:
            self.feeding.go_on(follower)
        if self.handing_over:
            self._hand_over_when_ready(now)

    def _measure_round(self, follower: Follower, durable: int, now: float) -> None:
        if durable >= follower.round_target and self.opened and durable >= self.first:
            in_time = now - follower.round_started <= 2 * self.common.config.timing.heartbeat
            follower.caught_up = in_time or durable == self.common.end.index
            follower.round_target, follower.round_started = self.common.commit, now

    # --- commit and lease --------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Committed is what every member of the effective set has durably, from this epoch's first record on."""
        index = self.common.durable
        for replica in self._acknowledging:
            index = min(index, self.acked.get(replica, 0))
        if index >= self.first and index > self.common.commit and not self.common.stopped:
            self.common.commit_to(index, enough=self.enough)

    def _leased(self, now: float) -> bool:
        """Whether this run may serve reads of its own now, and followers those of what it tells."""
        return now < self.lease_until and self.serving

    def _renew_lease(self) -> None:
        oldest = ALWAYS
        for replica in self._promising:
            oldest = min(oldest, self.promised.get(replica, NEVER))
        self.lease_until = oldest + self._lease

    def _recount(self) -> None:
        """The effective set: while a change is "maybe" additions count and removals do not (rule 2)."""
        tried = self.attempt.state.in_sync if self.attempt else ()
        self.effective = tuple(dict.fromkeys((*self.state.in_sync, *tried)))
        self.joining.difference_update(self.effective)
        self.effective = (*self.effective, *sorted(self.joining))
        self.enough = len(self.effective) - len(self.joining) >= self.state.min_in_sync
        self._acknowledging = tuple(r for r in self.effective if r != self.common.replica)
        self._promising = tuple(r for r in self._acknowledging if r not in self.joining)
        self._renew_lease()

    def _drop_joining(self, replica: ReplicaId) -> None:
        if replica in self.joining:
            self.joining.discard(replica)
            self._recount()
            self._advance()

    # --- the in-sync set ---------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Heartbeats, and changes of the in-sync set that are due."""
        heartbeat = self.common.config.timing.heartbeat
        self._end_silent(now)
        self._hand_over_if_unfit(now)
        for follower in self.followers.values():
            if now - follower.sent_at >= heartbeat or follower.sent_commit < self.common.commit:
                self.feeding.send(follower, (), now, leased=self._leased(now))
            self.feeding.go_on(follower)
        self._tell_passed(now)
        if self.attempt is not None:
            self.common.ask_again_when_due(self.attempt, now)
        elif not self.common.doubt.active:
            self._change_in_sync(now)
        self._hand_over_when_ready(now)

    def _tell_passed(self, now: float) -> None:
        """Say now and then how far every replica of the partition has its log, those that are away included (rule 16)."""
        if now - self.passed_at < PASSED_EVERY:
            return
        self.passed_at = now
        newest = {replica.pod: replica for replica in self.runs}  # a pod's later incarnation came later
        newest[self.common.replica.pod] = self.common.replica
        durable = {**self.acked, self.common.replica: self.common.durable}
        index = min(durable.get(newest[pod], 0) if pod in newest else 0 for pod in self.state.replicas)
        index = min(index, self.common.commit)
        if index > self.common.passed:
            self.common.passed = index
            for follower in self.followers.values():
                self.common.emit(Send(follower.conn, Passed(self.epoch, index)))

    def _end_silent(self, now: float) -> None:
        """A follower that does not answer gets nothing more: what is sent to it would pile up."""
        limit = 2 * self.common.config.timing.lease
        for replica, follower in list(self.followers.items()):
            if now - self.heard[replica] > limit:
                self.common.emit(Close(follower.conn))
                self.disconnected(follower.conn)

    def _change_in_sync(self, now: float) -> None:
        state = self.state
        stay = [r for r in self.paces.last(state.in_sync) if not self._lost(r, now)]
        for replica in [r for r in stay if r in self.leaving or not state.belongs(r)]:
            # Who goes by choice does not take the last copies along; a leader that was taken out hands over first.
            if replica != self.common.replica and len(stay) - 1 >= max(1, state.min_in_sync):
                stay.remove(replica)
        join = [r for r, f in self.followers.items() if self._may_join(r, f, now)]
        self._await_joining(join)
        join = [r for r in join if self.acked[r] >= self.common.commit]  # whoever joins may lead: it has everything
        in_sync = (*stay, *join)
        if in_sync != state.in_sync:
            wanted = replace(state, in_sync=in_sync, serial=state.serial + 1)
            self.attempt = Attempt(self.common.meta.state_version, wanted)
            self._recount()  # from before it is tried, additions count
            if join:
                self.common.persist_tried(wanted)
            self.common.ask(self.attempt)

    def _await_joining(self, join: list[ReplicaId]) -> None:
        """From now on nothing is committed that those who are to join don't have."""
        if self.joining != set(join):
            self.joining = set(join)
            self._recount()
            self._advance()

    def _lost(self, replica: ReplicaId, now: float) -> bool:
        if replica == self.common.replica:
            return False
        timeout = self.common.config.timing.follower_timeout
        follower = self.followers.get(replica)
        silent = now - self.heard.get(replica, self.started)
        stuck = now - follower.unacked[0][2] if follower is not None and follower.unacked else 0.0
        return replica in self.gone or silent > timeout or stuck > timeout

    def _may_join(self, replica: ReplicaId, follower: Follower, now: float) -> bool:
        return (
            follower.caught_up
            and replica not in self.state.in_sync
            and replica not in self.gone
            and replica not in self.leaving
            and not self._lost(replica, now)
            and self.state.belongs(replica)
            and self.acked.get(replica, 0) >= self.first
        )

    def death(self, death: Death) -> None:
        """The kubelet says that a follower's container is terminated: no need to wait for the time-out."""
        for replica, run in self.runs.items():
            if replica.pod == death.pod and run.run == death.run:
                self.gone.add(replica)

    def cas_answered(self, expected_version: int, outcome: Won | Lost | None, now: float) -> PartitionState | None:
        """The state won, if it was; otherwise the change stays "maybe" until a newer state is seen."""
        attempt = self.attempt
        if attempt is None or attempt.expected_version != expected_version:
            return None
        if isinstance(outcome, Won):
            return attempt.state
        attempt.asked = False
        attempt.retry_at = now + self.common.config.retry
        if isinstance(outcome, Lost):
            self.common.emit(ReadState())
        return None

    def trusted_again(self) -> None:
        """Coordination shows what it should: what was acknowledged meanwhile may be committed."""
        self._recount()
        self._advance()

    def state_changed(self) -> None:
        """A newer state of this same epoch is known: what was tried is settled."""
        self.attempt = None
        for follower in self.followers.values():
            if follower.run.replica not in self.state.in_sync:
                follower.caught_up = False  # whoever was taken out proves anew that it keeps up
                follower.round_target = self.common.end.index
        self._recount()
        self._advance()

    # --- hand-over ---------------------------------------------------------------------------------------------------

    def hand_over(self) -> None:
        """Stop accepting; pass leadership on as soon as a follower has everything."""
        self.handing_over, self.hand_over_until = True, ALWAYS

    def _hand_over_if_unfit(self, now: float) -> None:
        """A leader whose disk stands still or is far slower than a follower's passes leadership on, not for long in vain.

        So does one that was taken out of the partition, once a replica that belongs to it is in sync.
        """
        me, state = self.common.replica, self.state
        spared = self.attempt is None and not state.belongs(me) and any(map(state.belongs, state.in_sync))
        if self.handing_over:
            self.handing_over = now < self.hand_over_until
        elif self._hung(now) or self.paces.should_hand_over(me, state.in_sync, now, spared=spared):
            self.handing_over, self.hand_over_until = True, now + self.common.config.timing.lease

    def _hand_over_when_ready(self, now: float) -> None:
        common = self.common
        if not self.handing_over or self.attempt is not None or not self.opened or self.common.doubt.active:
            return
        all_committed = common.settled and common.commit == common.end.index
        if not all_committed and not self._hung(now):
            return
        for replica in sorted(self.paces.last(self.state.in_sync), key=lambda r: not self.state.belongs(r)):
            follower = self.followers.get(replica)
            fresh = now - self.heard.get(replica, NEVER) < common.config.timing.heartbeat * 2
            has_all = all_committed or self.acked.get(replica, 0) == common.end.index
            if follower is not None and fresh and has_all and replica not in self.leaving | self.gone:
                common.emit(Send(follower.conn, Go(self.epoch, common.config.me)))
                self.handed_over = True  # rule 6: from here on this run serves nothing in this epoch
                return

    def _hung(self, now: float) -> bool:
        """Whether a write has waited for the own disk as long as a follower may take, while a follower has it durably."""
        then = now - self.common.config.timing.follower_timeout
        return self.paces.hung(then, [self.acked.get(r, 0) for r in self.state.in_sync])

    def close(self) -> None:
        """End every follower's connection."""
        for follower in self.followers.values():
            self.common.emit(Close(follower.conn))
