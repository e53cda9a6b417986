"""Readable scenarios of the replication core: several `Replica`s driven by commands, with what came of them.

A file is blocks with an empty line between. A block is comments (`# ...`), commands, `----`, then the output that is
expected. `KV_REWRITE=1 pytest tests/unit/kvnode/test_scenarios.py` writes the outputs anew; read the diff.

Time stands still but for `run SECONDS`, which ticks every replica each 50 ms. What is not held happens at once: disks
write, messages arrive, compare-and-sets are answered. The idea is etcd-io/raft's testdata.

    birth A B C min=2       start the replicas of a new partition
    run 2                   let time pass
    propose A [n=3] [size=8]  n batches of one record at the leader
    hold disk A / hold cas A / hold net A B, and `release` of the same
    break A B / heal A B    connections end and can't be made / can again
    away A / back A         coordination can't be reached by A
    cas A won|landed|lost|none|late   the fate of A's held compare-and-set; `land A` lets a late one arrive
    crash A [torn=1]        what is not durable is lost, and `torn` durable batches with it
    restart A               the next run of A's process, on the same disk
    copy A / oldcopy A      A's disk is copied, while A runs or not / A, which does not run, gets that copy
    strange A               why A must not lead
    rebuild A               from empty, under the next incarnation
    fail A                  A's disk fails
    death A                 the kubelet's word about A's last run
    leave A / handover A
    compact A 5 [purged=3]  A's log is compacted to there, deletes that far are gone
    passed A                how far A knows every replica to be
    min 1                   a person sets minInSync
    new D                   a pod with an empty disk starts
    replicas A B D          the operator makes these the partition's pods
    space A low|enough      what is left on A's disk
    disk A 0.2              A's syncs take so long
    load 15                 for so many seconds the leader is given a batch twice a second
    lose                    coordination's data is gone; `keep` remembers it, `turnback` puts back what was kept
    putback A               the state that A knows comes back, of a new generation
    choose A                a person's word, as kvrecover --take has it: A alone is in sync, nobody leads
    tried A                 what A's disk says about an addition that is not settled
    say A B <message>       B gets a message on its connection with A as if from A: append-gap, append-old, ack-beyond
    status / state / log A / fresh A / trace on|off
"""

import shlex
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from kvcoord.contract import Death, Lost, PartitionState, ReplicaId, RunId, Won
from kvnode.core import effects as ef
from kvnode.core import events as ev
from kvnode.core.messages import Ack, Append, Compacted, Go, Hello, Leave, Message, Passed, Refuse, Welcome
from kvnode.core.replica import Replica
from kvnode.core.types import START, Batch, Config, EpochStart, LogView, Meta, Position, Role

TICK = 0.05
READ_BATCHES = 4


@dataclass
class Link:
    """A connection: the two ends as (pod, conn), what is on the way to each."""

    ends: tuple[tuple[str, int], tuple[str, int]]
    queues: dict[str, deque[Message | None]]  # by receiver; None: the other side closed

    def other(self, pod: str) -> tuple[str, int]:
        """The end that is not this pod's."""
        return self.ends[1] if self.ends[0][0] == pod else self.ends[0]


@dataclass
class Process:
    """A pod: its disk, and its replica while it runs."""

    pod: str
    incarnation: int = 1
    run: int = 0
    meta: Meta = field(default_factory=Meta)
    log: list[Batch] = field(default_factory=list)
    durable: int = 0  # batches of `log`
    sync_takes: float = 0.0
    sync_begun: float | None = None
    torn: bool = False
    copy: tuple[Meta, list[Batch]] | None = None
    horizon: int = 0
    purged_to: int = 0
    purges: int = 0
    replica: Replica | None = None
    events: deque[ev.Event] = field(default_factory=deque)
    attempts: deque[ef.CompareAndSet] = field(default_factory=deque)
    late: ef.CompareAndSet | None = None
    asked: ef.CompareAndSet | None = None
    dials: deque[RunId] = field(default_factory=deque)
    reads: deque[int] = field(default_factory=deque)  # numbers
    holds: set[str] = field(default_factory=set)
    away: bool = False
    seen: tuple[int, int] | None = None  # birth and version of the state

    @property
    def me(self) -> RunId:
        return RunId(ReplicaId(self.pod, str(self.incarnation)), f"{self.pod}{self.run}")

    @property
    def core(self) -> Replica:
        assert self.replica is not None, f"{self.pod} does not run"
        return self.replica

    def view(self) -> LogView:
        """The log as a start finds it."""
        end = self.log[-1].end if self.log else START
        hint = max((int(b.data.rstrip(b".")) for b in self.log), default=0)
        epochs: list[EpochStart] = []
        for batch in self.log:
            if not epochs or epochs[-1].epoch != batch.epoch:
                epochs.append(EpochStart(batch.epoch, batch.first))
        commit = min(max(hint, self.horizon), end.index)
        return LogView(end, commit, tuple(epochs), torn=self.torn, horizon=self.horizon)


class World:
    """All of a scenario; `do` carries out a command and returns what happened."""

    def __init__(self) -> None:
        self.now = 0.0
        self.processes: dict[str, Process] = {}
        self.state: PartitionState | None = None
        self.version = 0
        self.births = 0
        self.kept: tuple[PartitionState | None, int] = (None, 0)
        self.links: list[Link] = []
        self.conns = 0
        self.held_links: set[frozenset[str]] = set()
        self.broken: set[frozenset[str]] = set()
        self.trace = False
        self.lines: list[str] = []

    def do(self, command: str) -> list[str]:
        """Carry out one command."""
        name, *words = shlex.split(command)
        plain = [w for w in words if "=" not in w]
        options = dict(w.split("=", 1) for w in words if "=" in w)
        handler: Callable[..., None] = getattr(self, f"_do_{name}")
        handler(*plain, **options)
        self._settle()
        lines, self.lines = self.lines, []
        return lines

    # --- commands ----------------------------------------------------------------------------------------------------

    def _do_birth(self, *pods: str, **options: str) -> None:
        for pod in pods:
            self.processes[pod] = Process(pod)
        in_sync = tuple(ReplicaId(p, "1") for p in pods)
        self.state = PartitionState(0, None, in_sync, pods, int(options.get("min", "1")))
        self.births = 1
        for pod in pods:
            self._do_restart(pod)

    def _do_restart(self, pod: str) -> None:
        process = self.processes[pod]
        process.run += 1
        process.seen = None
        config = Config("c", 0, process.me, window=64)
        process.replica = Replica(config, process.meta, process.view(), self.now)
        process.torn = False

    def _do_run(self, seconds: str) -> None:
        self._settle()
        for _ in range(round(float(seconds) / TICK)):
            self.now += TICK
            for process in self._alive():
                self._step(process, ev.Tick())
            self._settle()

    def _do_propose(self, pod: str, n: str = "1", size: str = "8") -> None:
        core = self.processes[pod].core
        for _ in range(int(n)):
            if not core.accepting:
                self._say(pod, "accepts no writes")
                return
            index = core.end.index + 1
            data = str(core.commit).encode().ljust(int(size), b".")
            self._step(self.processes[pod], ev.Proposed(Batch(core.epoch, index, index, data)))

    def _do_hold(self, what: str, *pods: str) -> None:
        if what == "net":
            self.held_links.add(frozenset(pods))
        else:
            self.processes[pods[0]].holds.add(what)

    def _do_release(self, what: str, *pods: str) -> None:
        if what == "net":
            self.held_links.discard(frozenset(pods))
        else:
            self.processes[pods[0]].holds.discard(what)

    def _do_break(self, *pods: str) -> None:
        self.broken.add(frozenset(pods))
        for link in [k for k in self.links if {k.ends[0][0], k.ends[1][0]} == set(pods)]:
            self._end(link)

    def _do_heal(self, *pods: str) -> None:
        self.broken.discard(frozenset(pods))

    def _do_away(self, pod: str) -> None:
        self.processes[pod].away = True

    def _do_back(self, pod: str) -> None:
        self.processes[pod].away = False

    def _do_cas(self, pod: str, fate: str) -> None:
        process = self.processes[pod]
        attempt = process.attempts.popleft()
        if fate == "late":
            process.late = attempt
        answer: Won | Lost | None = None
        if fate in ("won", "landed"):
            answer = self._compare_and_set(pod, attempt)
        elif fate == "lost":
            answer = Lost()
        self._answer(process, attempt, None if fate == "landed" else answer)

    def _do_land(self, pod: str) -> None:
        late, self.processes[pod].late = self.processes[pod].late, None
        assert late is not None
        self._compare_and_set(pod, late)

    def _do_crash(self, pod: str, torn: str = "0") -> None:
        process = self.processes[pod]
        kept = process.durable - int(torn)
        process.torn = kept < len(process.log)
        process.log = process.log[:kept]
        process.durable = kept
        process.replica = None
        process.events.clear()
        process.attempts.clear()
        process.dials.clear()
        process.reads.clear()
        for link in [k for k in self.links if pod in (k.ends[0][0], k.ends[1][0])]:
            self._end(link)

    def _do_rebuild(self, pod: str) -> None:
        process = self.processes[pod]
        self._do_crash(pod)
        process.incarnation += 1
        process.log, process.durable, process.torn = [], 0, False
        process.horizon = process.purged_to = 0
        self._do_restart(pod)

    def _do_copy(self, pod: str) -> None:
        process = self.processes[pod]
        process.copy = process.meta, process.log[: process.durable]

    def _do_oldcopy(self, pod: str) -> None:
        process = self.processes[pod]
        assert process.replica is None, "it runs"
        assert process.copy is not None, "nothing was copied"
        process.meta, process.log = process.copy
        process.durable = len(process.log)
        process.torn = False

    def _do_strange(self, pod: str) -> None:
        self._say(pod, self.processes[pod].core.strange or "is no stranger")

    def _do_fail(self, pod: str) -> None:
        self._step(self.processes[pod], ev.WriteFailed("disk broken"))

    def _do_death(self, pod: str) -> None:
        process = self.processes[pod]
        run = process.run if process.replica is None else process.run - 1
        epoch = self.state.epoch if self.state else 0
        for other in self._alive():
            self._step(other, ev.DeathReported(Death(pod, f"{pod}{run}", "c", epoch)))

    def _do_leave(self, pod: str) -> None:
        self._step(self.processes[pod], ev.LeaveRequested())

    def _do_handover(self, pod: str) -> None:
        self._step(self.processes[pod], ev.HandOverRequested())

    def _do_compact(self, pod: str, upto: str, purged: str = "0") -> None:
        process = self.processes[pod]
        assert int(upto) <= process.core.commit, "only what is committed supersedes"
        process.horizon, process.purged_to = int(upto), int(purged)
        process.purges += 1

    def _do_passed(self, pod: str) -> None:
        self._say(pod, f"every replica is known to have {self.processes[pod].core.passed}")

    def _do_min(self, number: str) -> None:
        assert self.state is not None
        self.state = replace(self.state, min_in_sync=int(number), serial=self.state.serial + 1)
        self.version += 1

    def _do_new(self, pod: str) -> None:
        self.processes[pod] = Process(pod)
        self._do_restart(pod)

    def _do_replicas(self, *pods: str) -> None:
        assert self.state is not None
        self.state = replace(self.state, replicas=pods, serial=self.state.serial + 1)
        self.version += 1

    def _do_space(self, pod: str, what: str) -> None:
        self._step(self.processes[pod], ev.DiskSpace(low=what == "low"))

    def _do_disk(self, pod: str, seconds: str) -> None:
        self.processes[pod].sync_takes = float(seconds)

    def _do_load(self, seconds: str) -> None:
        for _ in range(2 * int(seconds)):
            leader = next((p for p in self._alive() if p.core.role is Role.LEADER), None)
            if leader is not None and leader.core.accepting:
                self._do_propose(leader.pod)
            self._do_run("0.5")
            self.lines = [line for line in self.lines if " committed " not in line]

    def _do_lose(self) -> None:
        self.state, self.version = None, -1
        self.births += 1

    def _do_keep(self) -> None:
        self.kept = self.state, self.version

    def _do_turnback(self) -> None:
        self.state, self.version = self.kept
        self.births += 1

    def _do_putback(self, pod: str) -> None:
        known = self.processes[pod].core.state
        assert known is not None
        self.state = replace(known, serial=known.serial + 1, generation=known.generation + 1)
        self.version += 1
        self.births += 1

    def _do_choose(self, pod: str) -> None:
        assert self.state is not None
        me = self.processes[pod].me.replica
        self.state = replace(self.state, leader=None, in_sync=(me,), serial=self.state.serial + 1)
        self.version += 1

    def _do_tried(self, pod: str) -> None:
        self._say(pod, f"tried {_state(self.processes[pod].meta.tried)}")

    def _do_say(self, sender: str, receiver: str, what: str) -> None:
        link = next(k for k in self.links if {k.ends[0][0], k.ends[1][0]} == {sender, receiver})
        conn = link.other(sender)[1]
        core = self.processes[receiver].core
        end = core.end
        following = core.following
        batch = Batch(core.epoch, end.index + 2, end.index + 2, b"0")
        message: Message
        if what == "append-gap":
            message = Append(core.epoch, following.heard + 1, end, 0, (batch,), 0, leased=False)
        elif what == "append-old":
            message = Append(core.epoch - 1, following.heard + 1, end, 0, (), 0, leased=False)
        elif what == "append-ahead":  # as to a follower that has most of the log still to get
            message = Append(core.epoch, following.heard + 1, end, end.index + 100, (), 0, leased=False)
        elif what == "append-elsewhere":
            message = Append(
                core.epoch, following.heard + 1, Position(end.epoch, end.index + 1), 0, (), 0, leased=False
            )
        else:
            assert what == "ack-beyond", what
            message = Ack(core.epoch, 1000, 0, end.index + 1)
        self._step(self.processes[receiver], ev.Received(conn, message))

    def _do_trace(self, on: str) -> None:
        self.trace = on == "on"

    def _do_state(self) -> None:
        self.lines.append(f"version {self.version}: {_state(self.state)}")

    def _do_log(self, pod: str) -> None:
        process = self.processes[pod]
        rows: list[str] = []
        starts = [b for a, b in pairwise([None, *process.log]) if b and (a is None or a.epoch != b.epoch)]
        for start, following in pairwise([*starts, None]):
            assert start is not None
            last = (following.first - 1) if following else process.log[-1].last
            rows.append(f"epoch {start.epoch}: {start.first}..{last}")
        self._say(pod, "log " + (", ".join(rows) or "empty"))

    def _do_fresh(self, pod: str) -> None:
        age = self.now - self.processes[pod].core.fresh_at
        self._say(pod, f"fresh to {age:.2f} s" if age < 1000 else "can't show how fresh it is")

    def _do_status(self) -> None:
        for process in self.processes.values():
            core = process.replica
            if core is None:
                self._say(process.pod, "does not run")
                continue
            text = (
                f"{core.role.value} epoch {core.epoch} end {core.end.index} durable {core.durable} commit {core.commit}"
            )
            if core.role is Role.LEADER:
                text += f", {'leased' if self.now < core.lease_until else 'no lease'}"
                text += "" if core.accepting else ", not accepting"
                text += "" if core.enough else ", too few in sync"
            text += "" if core.loss is None else f", coordination's data is {core.loss.value}"
            text += "" if core.whole else ", has a part only"
            if core.leaving:
                text += ", may exit" if core.may_exit else ", may not exit"
            self._say(process.pod, text)

    # --- the world ---------------------------------------------------------------------------------------------------

    def _alive(self) -> list[Process]:
        return [p for p in self.processes.values() if p.replica is not None]

    def _say(self, pod: str, text: str) -> None:
        self.lines.append(f"{self.now:6.2f} {pod} {text}")

    def _settle(self) -> None:
        for _ in range(10_000):
            if not sum(map(self._settle_once, self._alive())):
                return
        raise AssertionError("the world does not come to rest")

    def _settle_once(self, process: Process) -> bool:
        if process.replica is None:
            return False
        if process.events:
            self._step(process, process.events.popleft())
            return True
        return (
            self._show_state(process)
            or self._answer_coordination(process)
            or self._write(process)
            or self._dial(process)
            or self._deliver(process)
        )

    def _show_state(self, process: Process) -> bool:
        if process.away or not self.births or process.seen == (self.births, self.version):
            return False
        process.seen = self.births, self.version
        self._step(process, ev.StateSeen(self.state, self.version))
        return True

    def _answer_coordination(self, process: Process) -> bool:
        if process.reads and not process.away:
            self._step(process, ev.StateSeen(self.state, self.version, process.reads.popleft()))
            return True
        if process.attempts and "cas" not in process.holds:
            attempt = process.attempts.popleft()
            self._answer(process, attempt, None if process.away else self._compare_and_set(process.pod, attempt))
            return True
        return False

    def _compare_and_set(self, pod: str, attempt: ef.CompareAndSet) -> Won | Lost:
        if attempt.expected_version != self.version:
            self._say(pod, "lost the compare-and-set")
            return Lost()
        self.version += 1
        self.state = attempt.state
        self._say(pod, f"won: {_state(self.state)}")
        return Won(self.version)

    def _answer(self, process: Process, attempt: ef.CompareAndSet, answer: Won | Lost | None) -> None:
        if process.replica is not None:
            self._step(process, ev.CasAnswered(attempt.expected_version, answer))

    def _write(self, process: Process) -> bool:
        if process.durable == len(process.log) or "disk" in process.holds:
            return False
        if process.sync_takes:
            if process.sync_begun is None:
                process.sync_begun = self.now
            if self.now - process.sync_begun < process.sync_takes - TICK / 2:
                return False
        process.sync_begun = None
        process.durable = len(process.log)
        self._step(process, ev.Written(process.log[-1].end))
        return True

    def _dial(self, process: Process) -> bool:
        if not process.dials:
            return False
        to = process.dials.popleft()
        target = self.processes[to.replica.pod]
        apart = frozenset((process.pod, target.pod)) in self.broken | self.held_links
        if apart or target.replica is None or target.me != to:
            self._step(process, ev.DialFailed(to))
            return True
        self.conns += 2
        ends = ((process.pod, self.conns - 1), (target.pod, self.conns))
        self.links.append(Link(ends, {process.pod: deque(), target.pod: deque()}))
        self._step(process, ev.Dialed(self.conns - 1, to))
        return True

    def _deliver(self, process: Process) -> bool:
        for link in list(self.links):
            pods = frozenset((link.ends[0][0], link.ends[1][0]))
            queue = link.queues.get(process.pod)
            if not queue or pods in self.held_links:
                continue
            message = queue.popleft()
            conn = link.ends[0][1] if link.ends[0][0] == process.pod else link.ends[1][1]
            if message is None:
                self.links.remove(link)
                self._step(process, ev.Disconnected(conn))
            else:
                if self.trace:
                    self._say(process.pod, f"gets {_message(message)}")
                self._step(process, ev.Received(conn, message))
            return True
        return False

    def _end(self, link: Link) -> None:
        self.links.remove(link)
        for pod, conn in link.ends:
            process = self.processes[pod]
            if process.replica is not None:
                process.events.append(ev.Disconnected(conn))

    def _link(self, pod: str, conn: int) -> Link | None:
        return next((k for k in self.links if (pod, conn) in k.ends), None)

    # --- effects -----------------------------------------------------------------------------------------------------

    def _step(self, process: Process, event: ev.Event) -> None:
        for effect in process.core.step(event, self.now):
            self._effect(process, effect)

    def _effect(self, process: Process, effect: ef.Effect) -> None:
        pod = process.pod
        match effect:
            case ef.Persist(meta):
                process.meta = meta
            case ef.Cut(after):
                self._say(pod, f"cuts its log after {after.index}")
                process.log = [b for b in process.log if b.last <= after.index]
                process.durable = len(process.log)
            case ef.Inherit(horizon, purged_to):
                self._say(pod, f"copies a log compacted to {horizon}, deletes gone to {purged_to}")
                process.horizon, process.purged_to = horizon, purged_to
            case ef.Write(batch):
                process.log.append(batch)
            case ef.Send(conn, message):
                link = self._link(pod, conn)
                if link is not None:
                    link.queues[link.other(pod)[0]].append(message)
            case ef.Dial(to):
                process.dials.append(to)
            case ef.Close(conn):
                self._close(pod, conn)
            case ef.CompareAndSet(expected, state):
                if process.asked != effect:
                    self._say(pod, f"asks, if version {expected}: {_state(state)}")
                process.asked = effect
                process.attempts.append(effect)
            case ef.ReadState(number):
                process.reads.append(number)
            case ef.ReadLog(conn, after):
                behind = tuple(b for b in process.log if b.first > after)[:READ_BATCHES]
                self._say(pod, f"reads {len(behind)} batches after {after} for a follower")
                process.events.append(
                    ev.LogRead(conn, after, behind, process.horizon, process.purged_to, process.purges)
                )
            case ef.OpenEpoch(epoch):
                index = process.core.end.index + 1
                batch = Batch(epoch, index, index, str(process.core.commit).encode())
                self._step(process, ev.Proposed(batch, internal=True))
            case ef.Committed(index, enough):
                self._say(pod, f"committed {index}{'' if enough else ', by too few'}")
            case ef.RoleChanged(role, epoch):
                self._say(pod, f"is {role.value}, epoch {epoch}")
            case ef.Rebuild(reason):
                self._say(pod, f"must be rebuilt: {reason}")

    def _close(self, pod: str, conn: int) -> None:
        link = self._link(pod, conn)
        if link is not None:
            self._say(pod, f"ends its connection with {link.other(pod)[0]}")
            link.queues[link.other(pod)[0]].append(None)
            del link.queues[pod]  # what was on its way here is lost
            self.processes[pod].events.append(ev.Disconnected(conn))
            link.ends = (link.other(pod), link.other(pod))


def _state(state: PartitionState | None) -> str:
    if state is None:
        return "no state"
    leader = state.leader.run if state.leader else "nobody"
    in_sync = " ".join(r.pod if r.incarnation == "1" else f"{r.pod}/{r.incarnation}" for r in state.in_sync)
    return f"epoch {state.epoch} led by {leader}, in sync {in_sync}"


def _message(message: Message) -> str:
    match message:
        case Hello():
            return f"Hello from {message.sender.run}, end {message.end.index} of epoch {message.end.epoch}"
        case Welcome():
            return f"Welcome, epoch {message.epoch}, parting at {message.parting.index}"
        case Refuse():
            return f"Refuse {message.reason.name}"
        case Append():
            what = f"{message.batches[0].first}..{message.batches[-1].last}" if message.batches else "nothing"
            return f"Append {what} after {message.prev.index}, commit {message.commit}"
        case Ack():
            return f"Ack of message {message.heard}, durable {message.durable}"
        case Go():
            return f"Go, epoch {message.epoch}"
        case Leave():
            return f"Leave{', broken' if message.broken else ''}"
        case Compacted():
            return f"Compacted to {message.horizon}, deletes gone to {message.purged_to}"
        case Passed():
            return f"Passed {message.index}"


@dataclass
class Block:
    """Commands with what is expected of them."""

    source: list[str]
    commands: list[str]
    expected: list[str]


def parse(text: str) -> Iterator[Block]:
    """The blocks of a scenario file."""
    for part in text.strip("\n").split("\n\n"):
        source, _, expected = part.partition("\n----")
        lines = source.splitlines()
        commands = [line for line in lines if line and not line.startswith("#")]
        yield Block(lines, commands, expected.strip("\n").splitlines())


def play(path: Path) -> tuple[str, str]:
    """(the file, what it should be by what happened)."""
    text = path.read_text()
    world = World()
    parts: list[str] = []
    for block in parse(text):
        lines = [line for command in block.commands for line in world.do(command)]
        head = "\n".join(block.source)
        parts.append("\n".join([head, "----", *lines]) if block.commands else head)
    return text, "\n\n".join(parts) + "\n"
