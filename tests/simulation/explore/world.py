"""A state of the whole configuration, and what can happen in it."""

from collections import deque
from collections.abc import Iterator

from kvcoord.contract import Lost, PartitionState, ReplicaId, RunId, Won
from kvnode.core import effects as ef
from kvnode.core import events as ev
from kvnode.core.replica import Replica
from kvnode.core.types import Batch, Config
from tests.simulation.explore.parts import STEP, TIMING, USUAL, Action, Attempt, Bounds, BrokenError, Disk, End, Node
from tests.simulation.timeline import describe, describe_state


class World:
    """A state of the whole configuration, and what can happen in it."""

    def __init__(self, replicas: int, bounds: Bounds) -> None:
        self.bounds = bounds
        pods = [f"p{i}" for i in range(replicas)]
        ids = tuple(ReplicaId(pod, f"{pod}-i1") for pod in pods)
        self.nodes = [Node(pod, Disk(replica)) for pod, replica in zip(pods, ids, strict=True)]
        self.disks = {replica: node.disk for replica, node in zip(ids, self.nodes, strict=True)}
        self.state = PartitionState(0, None, ids, tuple(pods), min_in_sync=1)
        self.version = 0
        self.now = 100.0
        self.ends: list[End] = []
        self.attempts: list[Attempt] = []
        self.used = {"writes": 0, "deaths": 0, "breaks": 0, "maybes": 0, "steps": 0}
        self.committed: list[tuple[int, bytes]] = [(0, b"")]
        self.writers: dict[int, RunId] = {}
        self.ticked: set[int] = set()  # nodes that did, since time passed
        self.told: list[str] = []  # of the newest action, in words
        for node in range(replicas):
            self._start(node)

    # --- what can happen ---------------------------------------------------------------------------------------------

    def actions(self) -> Iterator[Action]:
        left = {what: getattr(self.bounds, what) - used for what, used in self.used.items()}
        for i, end in enumerate(self.ends):
            if end.open and end.queue:
                yield "deliver", i
            if end.open and left["breaks"] and i < end.other:
                yield "break", i
        for i, attempt in enumerate(self.attempts):
            if attempt.landed is None:
                yield "land", i
            if not attempt.answered and attempt.landed is not None:
                yield "answer", i
            if not attempt.answered and left["maybes"]:
                yield "no answer", i
        for i, node in enumerate(self.nodes):
            core = node.core
            if core is None:
                yield "start", i
                continue
            if node.dialing is not None:
                yield "dial", i
            if node.disk.durable < len(node.disk.log):
                yield "flush", i
            if node.seen < self.version:
                yield "watch", i
            if node.reading is not None:
                yield "read", i
            yield "tick", i
            if left["deaths"]:
                yield "kill", i
            if left["writes"] and core.accepting and core.enough:
                yield "write", i
        if left["steps"]:
            yield "time", 0

    def usual(self) -> Action | None:
        """What happens next when nobody interferes: all that is under way, ticks, starts, writes, then time."""
        possible = list(self.actions())
        for what in USUAL:
            for action in possible:
                if action[0] == what and not (what == "tick" and action[1] in self.ticked):
                    return action
        return None

    def touched(self, action: Action) -> set[int]:
        """Nodes that an action changes; others hear of it by what is on its way to them."""
        what, i = action
        match what:
            case "deliver":
                return {self.ends[i].node}
            case "break":
                return {self.ends[i].node, self.ends[self.ends[i].other].node}
            case "answer" | "no answer":
                return {self.attempts[i].node}
            case "land" | "time":
                return set()
        return {i}

    def do(self, action: Action) -> None:
        """Let it happen. Raises BrokenError."""
        what, i = action
        self.told = [what if what == "time" else f"{what} {i}"]
        getattr(self, "_" + what.replace(" ", "_"))(i)
        self._check()

    def _deliver(self, i: int) -> None:
        end = self.ends[i]
        message = end.queue.popleft()
        if message is None:
            end.open = False
            self._step(end.node, ev.Disconnected(end.number))
        else:
            self.told.append(f"{end.run.run} gets {describe(message)}")
            self._step(end.node, ev.Received(end.number, message))

    def _break(self, i: int) -> None:
        self.used["breaks"] += 1
        for end in (self.ends[i], self.ends[self.ends[i].other]):
            end.open = False
            end.queue.clear()
            if self._runs(end.node, end.run):
                self._step(end.node, ev.Disconnected(end.number))

    def _land(self, i: int) -> None:
        attempt = self.attempts[i]
        if attempt.expected == self.version:
            self.state, self.version = attempt.state, self.version + 1
            attempt.landed = Won(self.version)
            self.told.append(f"coordination: now {describe_state(self.state)}")
        else:
            attempt.landed = Lost()
        self._tidy()

    def _answer(self, i: int) -> None:
        attempt = self.attempts[i]
        attempt.answered = True
        self._tidy()
        if self._runs(attempt.node, attempt.run):
            self._step(attempt.node, ev.CasAnswered(attempt.expected, attempt.landed))

    def _no_answer(self, i: int) -> None:
        self.used["maybes"] += 1
        attempt = self.attempts[i]
        attempt.answered = True
        self._tidy()
        if self._runs(attempt.node, attempt.run):
            self._step(attempt.node, ev.CasAnswered(attempt.expected, None))

    def _tidy(self) -> None:
        self.attempts = [a for a in self.attempts if a.landed is None or not a.answered]

    def _dial(self, i: int) -> None:
        node = self.nodes[i]
        to, node.dialing = node.dialing, None
        assert to is not None
        found = next((n for n, other in enumerate(self.nodes) if other.core and other.me == to), None)
        if found is None:
            self._step(i, ev.DialFailed(to))
            return
        at = len(self.ends)
        self.ends += [End(i, node.me, at, at + 1), End(found, to, at + 1, at)]
        self._step(i, ev.Dialed(at, to))

    def _flush(self, i: int) -> None:
        disk = self.nodes[i].disk
        disk.durable = len(disk.log)
        self._step(i, ev.Written(disk.log[-1].end))

    def _watch(self, i: int) -> None:
        self.nodes[i].seen = self.version
        self._step(i, ev.StateSeen(self.state, self.version))

    def _read(self, i: int) -> None:
        number, self.nodes[i].reading = self.nodes[i].reading, None
        self.nodes[i].seen = self.version
        self._step(i, ev.StateSeen(self.state, self.version, number or 0))

    def _tick(self, i: int) -> None:
        self.ticked.add(i)
        self._step(i, ev.Tick())

    def _time(self, _: int) -> None:
        self.used["steps"] += 1
        self.now += STEP
        self.ticked.clear()

    def _write(self, i: int) -> None:
        self.used["writes"] += 1
        self._propose(i, internal=False)

    def _kill(self, i: int) -> None:
        self.used["deaths"] += 1
        self._end(i)

    def _start(self, i: int) -> None:
        node = self.nodes[i]
        node.runs += 1
        node.seen, node.dialing, node.reading = -1, None, None
        self.ticked.discard(i)
        config = Config("c", 0, node.me, timing=TIMING, window=1 << 20, retry=0.1)
        node.core = Replica(config, node.disk.meta, node.disk.view(), self.now)

    # --- what comes of it --------------------------------------------------------------------------------------------

    def _runs(self, i: int, run: RunId) -> bool:
        return self.nodes[i].core is not None and self.nodes[i].me == run

    def _end(self, i: int) -> None:
        node = self.nodes[i]
        node.core = None
        del node.disk.log[node.disk.durable :]
        for end in self.ends:
            if end.node == i and end.open:
                end.open = False
                end.queue.clear()
                self.ends[end.other].queue.append(None)

    def _propose(self, i: int, *, internal: bool) -> None:
        node = self.nodes[i]
        core = node.core
        assert core is not None
        writer = self.writers.setdefault(core.epoch, node.me)
        if writer != node.me:
            raise BrokenError(f"invariant 1: {node.me.run} writes in epoch {core.epoch}, which is {writer.run}'s")
        index = core.end.index + 1
        batch = Batch(core.epoch, index, index, f"{node.me.run} {index}".encode())
        self._step(i, ev.Proposed(batch, internal=internal))

    def _step(self, i: int, event: ev.Event) -> None:
        """One event, and what its effects bring about at once."""
        node = self.nodes[i]
        core = node.core
        assert core is not None
        events = deque([event])
        while events:
            led = core.leading is not None
            for effect in core.step(events.popleft(), self.now):
                self._carry_out(i, effect, events, led=led or core.leading is not None)
                if node.core is not core:
                    return

    def _carry_out(self, i: int, effect: ef.Effect, events: "deque[ev.Event]", *, led: bool) -> None:
        node, who = self.nodes[i], self.nodes[i].me.run
        match effect:
            case ef.Send(conn, message):
                self.told.append(f"{who} sends {describe(message)}")
                if self.ends[conn].open:
                    self.ends[self.ends[conn].other].queue.append(message)
            case ef.Write(batch):
                node.disk.log.append(batch)
            case ef.Persist(meta):
                node.disk.meta = meta
            case ef.Cut(after):
                self.told.append(f"{who} cuts after {after.epoch}:{after.index}")
                node.disk.log = [b for b in node.disk.log if b.last <= after.index]
                node.disk.durable = len(node.disk.log)
            case ef.Committed(index, _):
                self.told.append(f"{who} commits to {index}")
                self._commits(i, index, led=led)
            case ef.ReadLog(conn, after):
                events.append(ev.LogRead(conn, after, tuple(b for b in node.disk.log if b.first > after)))
            case ef.Dial(to):
                node.dialing = to
            case ef.Close(conn):
                end = self.ends[conn]
                if end.open:
                    end.open = False
                    end.queue.clear()
                    self.ends[end.other].queue.append(None)
                    events.append(ev.Disconnected(conn))
            case ef.CompareAndSet(expected, state):
                self.told.append(f"{who} asks for {describe_state(state)}")
                self.attempts.append(Attempt(i, node.me, expected, state))
            case ef.ReadState(number):
                node.reading = number
            case ef.OpenEpoch():
                core = node.core
                assert core is not None
                index = core.end.index + 1
                writer = self.writers.setdefault(core.epoch, node.me)
                if writer != node.me:
                    raise BrokenError(f"invariant 1: two runs lead epoch {core.epoch}: {writer.run} and {who}")
                data = f"{who} opens {core.epoch}".encode()
                events.appendleft(ev.Proposed(Batch(core.epoch, index, index, data), internal=True))
            case ef.RoleChanged(role, epoch):
                self.told.append(f"{who} is {role.value} in epoch {epoch}")
            case ef.Rebuild(reason):
                self.told.append(f"{who} is rebuilt: {reason}")
                self._rebuild(i)

    def _rebuild(self, i: int) -> None:
        node = self.nodes[i]
        if node.disk.replica in self.state.in_sync:
            raise BrokenError(f"invariant 4: {node.me.run} wipes itself while it is in sync")
        self._end(i)
        node.incarnations += 1
        node.disk = Disk(ReplicaId(node.pod, f"{node.pod}-i{node.incarnations}"))
        self.disks[node.disk.replica] = node.disk

    def _commits(self, i: int, index: int, *, led: bool) -> None:
        node = self.nodes[i]
        for at in range(1, index + 1):
            batch = node.disk.log[at - 1] if at <= node.disk.durable else None
            if batch is None:
                raise BrokenError(f"invariant 11: {node.me.run} commits {at}, which it does not have durably")
            mine = (batch.epoch, batch.data)
            if at < len(self.committed):
                if self.committed[at] != mine:
                    raise BrokenError(f"invariant 16: {node.me.run} commits {mine} at {at}, not {self.committed[at]}")
            elif not led:
                raise BrokenError(f"invariant 16: {node.me.run} takes {at} for committed, which no leader committed")
            else:
                self.committed.append(mine)

    def _check(self) -> None:
        """The invariants of a state."""
        top = len(self.committed) - 1
        for replica in self.state.in_sync:
            disk = self.disks[replica]
            has = [(b.epoch, b.data) for b in disk.log[: disk.durable]]
            if has[:top] != self.committed[1:]:
                raise BrokenError(f"invariant 4: {replica} is in sync with {has}, committed is {self.committed[1:]}")
        holders = []
        for node in self.nodes:
            core = node.core
            if core is None:
                continue
            if not core.commit <= core.durable <= core.end.index:
                raise BrokenError(f"invariant 11: {node.me.run} commit {core.commit}, durable {core.durable}")
            leading = core.leading
            if leading is not None and leading.epoch == self.state.epoch:
                missing = set(self.state.in_sync) - set(leading.effective)
                if missing:
                    raise BrokenError(f"invariant 5: {node.me.run} does not count {missing}")
            if self.now < core.lease_until:
                holders.append(node.me.run)
                if core.commit < top:
                    raise BrokenError(f"invariant 15: {node.me.run} would read at {core.commit}, committed is {top}")
        if len(holders) > 1:
            raise BrokenError(f"invariant 6: valid leases are held by {holders}")
