"""One replica of one partition: events in, effects out. The roles are in `leading` and `following`.

FOLLOWER --promise ran out, or Go, or the word of death--> CLAIMING --won--> LEADER
CLAIMING --a newer state is seen--> FOLLOWER
LEADER   --another leads, a newer epoch, Go sent--> FOLLOWER
any      --a write failed--> FAILED --no longer in sync--> (rebuilt under a new incarnation)
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kvcoord.contract import Death, Lost, PartitionState, RunId, Won
from kvnode.core import events as ev
from kvnode.core.common import Attempt, Common
from kvnode.core.effects import Close, Effect, OpenEpoch, ReadState, RoleChanged, Send
from kvnode.core.facts import Facts
from kvnode.core.following import NEVER, Following
from kvnode.core.leading import Leading
from kvnode.core.messages import Hello, Refuse, RefuseReason
from kvnode.core.types import Config, LogView, Meta, Role

CLAIM_SETTLE = 0.1  # seconds: a leader that lives takes a silent follower out before the follower claims


class Replica(Facts):
    """The protocol of one replica. `step` is the only thing that changes it; no step blocks or raises.

    `now` is seconds of a clock that runs while the machine sleeps; it never goes back.
    """

    def __init__(self, config: Config, meta: Meta, log: LogView, now: float) -> None:
        self.config = config
        self.role = Role.FOLLOWER
        self.failure = ""
        self.common = Common(config, meta, log.end, log.end.index, log.commit, list(log.epochs), horizon=log.horizon)
        self.following = Following(self.common)
        self.leading: Leading | None = None
        self.claim: Attempt | None = None
        self.torn = log.torn
        self.leaving = False
        self.dead_leader = ""  # run that the kubelet's word says is dead, and when it came
        self.dead_at = NEVER
        timing = config.timing
        # Rule 3: what this replica promised before it was restarted still binds.
        self.started_until = self.bound_until = now + timing.lease * (1 + 2 * timing.clock_rate_error)
        # The run before this one led the epoch on disk, and so promised nothing to another; else whom it may have.
        found = meta.state
        led = found is not None and self.common.names_as_leader(found) and meta.accepted_epoch == found.epoch
        self.led_before = found.epoch if found is not None and led else -1
        self.promised_before = found.leader if found is not None and self.led_before < 0 else None
        self._judge_disk()
        self._handlers: dict[type[Any], Callable[[Any, float], None]] = {
            ev.Tick: self._tick,
            ev.StateSeen: self._state_seen,
            ev.CasAnswered: self._cas_answered,
            ev.Dialed: self._dialed,
            ev.DialFailed: lambda _, now: self.following.dial_failed(now),
            ev.Received: self._received,
            ev.Disconnected: self._disconnected,
            ev.Proposed: self._proposed,
            ev.Written: self._written,
            ev.WriteFailed: self._write_failed,
            ev.LogRead: self._log_read,
            ev.DeathReported: self._death_reported,
            ev.LeaveRequested: self._leave_requested,
            ev.HandOverRequested: self._hand_over_requested,
            ev.DiskSpace: lambda e, now: self.following.disk_space(now, low=e.low),
        }

    def step(self, event: ev.Event, now: float) -> list[Effect]:
        """Take one event; the effects are to be carried out in their order."""
        if self.following.rebuilding:  # it is about to be wiped: it must not be counted on again
            self._wait_for_rebuild(event)
        else:
            self._handlers[type(event)](event, now)
            leading = self.leading
            if leading is not None and (leading.deposed or leading.handed_over) and self.role is Role.LEADER:
                self._step_down(leading, now)
            self._work_out()
        out, self.common.out = self.common.out, []
        return out

    def _wait_for_rebuild(self, event: ev.Event) -> None:
        if isinstance(event, ev.WriteFailed):  # perhaps of the state that excludes it: what was to follow was not done
            self.following.broken = True
            self.following.rebuild_if_excluded()
        elif isinstance(event, ev.Received | ev.Dialed):
            self.common.emit(Close(event.conn))

    # --- coordination ------------------------------------------------------------------------------------------------

    def _state_seen(self, event: ev.StateSeen, now: float) -> None:
        known, stopped = self.common.state, self.common.stopped
        newer = known is None or self.common.doubt.newer(known, event, now)
        if newer and event.state is not None:
            self._adopt(event.state, event.version, now)
        if stopped and not self.common.stopped and self.leading is not None:
            self.leading.trusted_again()
        self._ask_in_doubt(now)

    def _ask_in_doubt(self, now: float) -> None:
        for effect in self.common.doubt.tick(now):
            self.common.emit(effect)

    def _adopt(self, state: PartitionState, version: int, now: float) -> None:
        """Act on a newer state, once it is on disk."""
        if self.role is Role.FAILED:
            self.common.note_state(state, version)
            self.following.rebuild_if_excluded()
            return
        was = self.common.state
        self.common.persist_state(state, version)
        self._judge_disk()
        claimed = self.claim.state.epoch if self.claim is not None else None
        self.claim = None  # a newer state settles it, won or lost
        if was is not None and (was.leader, was.epoch) != (state.leader, state.epoch):
            self.dead_leader = ""
            # A new leader gets a lease's time to be heard, as if this replica had promised it that already.
            self.bound_until = max(self.bound_until, now + self.config.timing.lease)
            self.following.dial_at = NEVER
        if self.leading and self._leads(state) and state.epoch == self.leading.epoch:
            self.leading.state_changed()
        elif claimed == state.epoch and self._leads(state):  # not one that it handed over, changed meanwhile (rule 6)
            self._lead(state, was, now)
        else:
            self._follow(now)

    def _judge_disk(self) -> None:
        """Rule 17, for a leader: what the replica acknowledged in an epoch that its disk knows nothing of, it may not have."""
        if self.common.outlived:
            self.following.outlived()
        elif self.common.state is not None and self.common.state.leader is None:
            self.following.stranger = self.following.old_copy = False  # a person chose: what there is counts

    def _lead(self, state: PartitionState, was: PartitionState | None, now: float) -> None:
        self.common.accept_epoch(state.epoch)
        led = was is not None and self.common.names_as_leader(was)
        restarted = (led or self.led_before >= 0) and self.following.promised_to is None
        self.leading = Leading(self.common, state, now, restarted=restarted)
        self._become(Role.LEADER, state.epoch)
        self.common.emit(OpenEpoch(state.epoch))

    def _follow(self, now: float) -> None:
        if self.leading is not None:
            self.leading.close()
            self.leading = None
        if self.role is not Role.FOLLOWER:
            self._become(Role.FOLLOWER, self.common.meta.accepted_epoch)
        self.following.rebuild_if_excluded()
        self.following.tick(now)

    def _become(self, role: Role, epoch: int) -> None:
        self.role = role
        self.common.emit(RoleChanged(role, epoch))

    def _step_down(self, leading: Leading, now: float) -> None:
        if leading.handed_over:  # give the one who was told to go a lease's time before claiming back
            self.bound_until = max(self.bound_until, now + self.config.timing.lease)
            self.leading = None  # the Go is still to be delivered: its connection is not closed by us
            self._become(Role.FOLLOWER, leading.epoch)
        self._follow(now)

    def _cas_answered(self, event: ev.CasAnswered, now: float) -> None:
        if self.claim is not None and event.expected_version == self.claim.expected_version:
            claim = self.claim
            if isinstance(event.outcome, Won):
                self._adopt(claim.state, event.outcome.version, now)
                return
            claim.asked = False
            claim.retry_at = now + self.config.retry
            if isinstance(event.outcome, Lost):
                self.common.emit(ReadState())
        elif self.leading is not None:
            won = self.leading.cas_answered(event.expected_version, event.outcome, now)
            if won is not None and isinstance(event.outcome, Won):
                self._adopt(won, event.outcome.version, now)

    # --- claiming ----------------------------------------------------------------------------------------------------

    def _claim_time(self, state: PartitionState) -> float | None:
        """When this replica may claim (rules 1, 3, 5, 7), in list order; None: not as things are."""
        me, timing = self.common.replica, self.config.timing
        if me not in state.in_sync or self.following.stranger or self.leaving or not self.common.settled:
            return None
        if self.common.end.index < self.common.horizon:  # rule 14
            return None
        leader = state.leader
        if leader is not None and self.following.told_to_go == (state.epoch, leader):
            return NEVER
        others = [r for r in state.in_sync if leader is None or r != leader.replica]
        others.sort(key=lambda r: not state.belongs(r))  # who was taken out of the partition leads if nobody else does
        if leader is None:
            bound = NEVER if state.epoch == 0 else self.bound_until
        elif state.epoch == self.led_before and not (self.torn and others):
            return NEVER  # rule 1: it promised nothing to another
        elif leader.run == self.dead_leader:
            bound = max(self.dead_at, self._promised_to_others(leader))
        else:
            bound = max(self.bound_until, self.following.promise_until)
        rank = others.index(me) if me in others else len(others)
        if self.torn:
            rank += len(others)  # it may have lost what it acknowledged: others first (rule 17)
        if bound == NEVER and rank:
            bound = self.bound_until
        if leader is not None and leader.run != self.dead_leader:
            bound += CLAIM_SETTLE
        return bound + rank * timing.claim_head_start

    def _promised_to_others(self, dead: RunId) -> float:
        """Until when this replica is bound to anyone but this dead run (rules 2 and 7).

        A claim of a run that died meanwhile may have landed late: then an older epoch's leader may hold a promise yet.
        """
        following = self.following
        now = following.promise_until if following.promised_to not in (None, dead) else NEVER
        before = self.started_until if self.promised_before not in (None, dead) else NEVER
        return max(now, before)

    def _claim_when_due(self, now: float) -> None:
        state = self.common.state
        if state is None or (self._leads(state) and self.role is Role.LEADER) or self.common.doubt.active:
            return
        due = self._claim_time(state)
        if due is None or now < due:
            return
        old = state.leader.replica if state.leader is not None else None
        me = self.common.replica
        rest = [r for r in state.in_sync if r not in (me, old)]
        handed = state.leader is not None and self.following.told_to_go == (state.epoch, state.leader)
        if handed and old is not None and old in state.in_sync and old != me:
            rest.append(old)  # rule 6: who handed over stays in the set
        wanted = replace(
            state,
            epoch=max(state.epoch, self.common.meta.accepted_epoch) + 1,
            leader=self.config.me,
            in_sync=(me, *rest),
            serial=state.serial + 1,
        )
        # Rule 2: from here until it is settled nothing is acknowledged or promised in an older epoch.
        self.following.drop(now, wait=False)
        self.claim = Attempt(self.common.meta.state_version, wanted)
        self._become(Role.CLAIMING, wanted.epoch)
        self.common.persist_claim()
        self.common.ask(self.claim)

    # --- the rest of the events --------------------------------------------------------------------------------------

    def _tick(self, _: ev.Tick, now: float) -> None:
        self._ask_in_doubt(now)
        if self.role is Role.LEADER:
            assert self.leading is not None
            self.leading.tick(now)
        elif self.role is Role.FOLLOWER:
            self.following.rebuild_if_excluded()
            self._claim_when_due(now)
            if self.role is Role.FOLLOWER:
                self.following.tick(now)
        elif self.role is Role.CLAIMING:
            assert self.claim is not None
            self.common.ask_again_when_due(self.claim, now)
        elif self.following.broken:
            self.following.rebuild_if_excluded()

    def _dialed(self, event: ev.Dialed, now: float) -> None:
        if self.role is Role.FOLLOWER:
            self.following.dialed(event.conn, event.to, now)
        else:
            self.following.dialing = None
            self.common.emit(Close(event.conn))

    def _received(self, event: ev.Received, now: float) -> None:
        if self.role is Role.FAILED:
            self.common.emit(Close(event.conn))
        elif event.conn == self.following.conn:
            self.following.received(event.conn, event.message, now)
            if self.following.told_to_go and self.role is Role.FOLLOWER:
                self._claim_when_due(now)
        elif self.leading is not None:
            self.leading.received(event.conn, event.message, now)
        else:
            if isinstance(event.message, Hello):
                self.common.emit(Send(event.conn, Refuse(self.epoch, RefuseReason.NOT_LEADER)))
            self.common.emit(Close(event.conn))

    def _disconnected(self, event: ev.Disconnected, now: float) -> None:
        self.following.disconnected(event.conn, now)
        if self.leading is not None:
            self.leading.disconnected(event.conn)

    def _proposed(self, event: ev.Proposed, now: float) -> None:
        assert self.leading is not None
        assert event.internal or self.accepting
        self.leading.propose(event.batch, now)

    def _written(self, event: ev.Written, now: float) -> None:
        if self.role is Role.FAILED or event.end.index <= self.common.durable:
            return
        self.common.durable = event.end.index
        if self.leading is not None:
            self.leading.written(now)
        elif self.role is Role.FOLLOWER:
            self.following.written(now)

    def _write_failed(self, event: ev.WriteFailed, now: float) -> None:
        if self.role is Role.FAILED:
            return
        self.failure = event.reason
        self.following.broken = True
        self.following.leave()
        self.following.drop(now)
        self.claim = None
        if self.leading is not None:
            self.leading.close()
            self.leading = None
        self._become(Role.FAILED, self.common.meta.accepted_epoch)
        self.following.rebuild_if_excluded()

    def _log_read(self, event: ev.LogRead, now: float) -> None:
        if self.leading is not None:
            self.leading.log_read(event, now)

    def _death_reported(self, event: ev.DeathReported, now: float) -> None:
        death: Death = event.death
        state = self.common.state
        if self.leading is not None:
            self.leading.death(death)
            self.leading.tick(now)
        elif state is not None and state.leader is not None:
            leader = state.leader
            if (leader.replica.pod, leader.run) == (death.pod, death.run) and self.dead_leader != death.run:
                self.dead_leader, self.dead_at = death.run, now
                if self.role is Role.FOLLOWER:
                    self._claim_when_due(now)

    def _leave_requested(self, _: ev.LeaveRequested, now: float) -> None:
        self.leaving = self.following.leaving = True
        if self.leading is not None:
            self.leading.hand_over()
            self.leading.tick(now)
        else:
            self.following.leave()

    def _hand_over_requested(self, _: ev.HandOverRequested, now: float) -> None:
        if self.leading is not None:
            self.leading.hand_over()
            self.leading.tick(now)
