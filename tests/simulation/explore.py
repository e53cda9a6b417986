"""Every interleaving of a small configuration: breadth first over the pure core's states, to a depth.

Two or three replicas run the shipped core. What may happen next is a list of actions: a message arrives, a flush ends, a
compare-and-set lands, is answered, or gets no answer, a watch shows the state, time passes, one replica ticks, a write is
proposed, a process dies or starts. Rare things are bounded in number (`Bounds`), all else is tried in every order; states
that are the same, by a hash of all that the replicas, disks, queues and coordination hold, are gone on with once.
Time is one clock that everybody reads when it next handles something, so a replica that is not chosen is one that is paused.

To a depth of ten or so that is every order. Deeper runs are explored with a bound on deviations (Emmi, Qadeer and
Rakamaric, "Delay-bounded scheduling", 2011): in every state the usual next action costs nothing, any other one does.
"""

import argparse
import copyreg
import pickle
import sys
import time
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from typing import Any

from kvcommon.numbers import Timing
from kvcoord.contract import Lost, PartitionState, ReplicaId, RunId, Won
from kvnode.core import effects as ef
from kvnode.core import events as ev
from kvnode.core.messages import Message
from kvnode.core.replica import Replica
from kvnode.core.types import START, Batch, Config, EpochStart, LogView, Meta, Position
from tests.simulation.timeline import describe, describe_state

TIMING = Timing(heartbeat=1.0, lease=2.0, follower_timeout=2.0, claim_head_start=0.3)
STEP = 1.1  # seconds by which time passes at once
USUAL = ("deliver", "land", "answer", "dial", "flush", "watch", "read", "tick", "start", "write", "time")
Action = tuple[str, int]  # what, and to which replica, connection's end or attempt


class BrokenError(Exception):
    """An invariant does not hold in a state."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How often at most: writes, deaths, broken connections, unanswered compare-and-sets, steps of time."""

    writes: int = 1
    deaths: int = 1
    breaks: int = 0
    maybes: int = 1
    steps: int = 4


@dataclass
class Disk:
    """One incarnation's log and meta."""

    replica: ReplicaId
    meta: Meta = field(default_factory=Meta)
    log: list[Batch] = field(default_factory=list)
    durable: int = 0

    def view(self) -> LogView:
        self.durable = len(self.log)
        epochs: list[EpochStart] = []
        for batch in self.log:
            if not epochs or epochs[-1].epoch != batch.epoch:
                epochs.append(EpochStart(batch.epoch, batch.first))
        return LogView(self.log[-1].end if self.log else START, 0, tuple(epochs))


@dataclass
class Node:
    """A pod: its disk, its process while it runs."""

    pod: str
    disk: Disk
    core: Replica | None = None
    runs: int = 0
    incarnations: int = 1
    seen: int = -1
    dialing: RunId | None = None
    reading: int | None = None  # number of the read of the state that is under way
    ticked: bool = field(default=False, metadata={"key": False})

    @property
    def me(self) -> RunId:
        return RunId(self.disk.replica, f"{self.pod}-r{self.runs}")


@dataclass
class End:
    """One end of a connection: whose, and what is on its way to it (None: the other end closed)."""

    node: int
    run: RunId
    number: int
    other: int
    queue: deque[Message | None] = field(default_factory=deque)
    open: bool = True


@dataclass
class Attempt:
    """A compare-and-set under way."""

    node: int
    run: RunId
    expected: int
    state: PartitionState
    landed: Won | Lost | None = None
    answered: bool = False


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
                if action[0] == what and not (what == "tick" and self.nodes[action[1]].ticked):
                    return action
        return None

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
        self.nodes[i].ticked = True
        self._step(i, ev.Tick())

    def _time(self, _: int) -> None:
        self.used["steps"] += 1
        self.now += STEP
        for node in self.nodes:
            node.ticked = False

    def _write(self, i: int) -> None:
        self.used["writes"] += 1
        self._propose(i, internal=False)

    def _kill(self, i: int) -> None:
        self.used["deaths"] += 1
        self._end(i)

    def _start(self, i: int) -> None:
        node = self.nodes[i]
        node.runs += 1
        node.seen, node.dialing, node.reading, node.ticked = -1, None, None, False
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

    # --- states ------------------------------------------------------------------------------------------------------

    def key(self, *, ticks: bool) -> int:
        """A hash of all that decides what can come; `ticks`: and who has ticked, which decides what is usual."""
        kept = {name: value for name, value in vars(self).items() if name not in ("told", "bounds")}
        return hash((freeze(kept), tuple(node.ticked for node in self.nodes) if ticks else ()))

    def dump(self) -> bytes:
        """Everything, to go on from later."""
        return zlib.compress(pickle.dumps(self, pickle.HIGHEST_PROTOCOL), 1)


def load(data: bytes) -> World:
    """The world that was dumped."""
    world = pickle.loads(zlib.decompress(data))
    assert isinstance(world, World)
    return world


_PLAIN = (int, float, str, bytes, bool, type(None))
_FROZEN = (Batch, Position, PartitionState, ReplicaId, RunId, Meta, Config, EpochStart)


def freeze(value: Any) -> Any:
    """A hashable picture of a value, whatever it is made of."""
    kind = type(value)
    if kind in _PLAIN or kind in _FROZEN:
        return value
    if kind in (list, tuple, deque):
        return tuple(map(freeze, value))
    if kind is dict:
        return frozenset((freeze(k), freeze(v)) for k, v in value.items())
    if kind in (set, frozenset):
        return frozenset(map(freeze, value))
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        return kind.__name__, *(freeze(getattr(value, f.name)) for f in fields(value) if f.metadata.get("key", True))
    if callable(value):
        return None  # a table of methods
    return kind.__name__, *((k, freeze(v)) for k, v in sorted(vars(value).items()) if k != "_handlers")


def _reduce(replica: Replica) -> Any:
    return _revive, (replica.config, {k: v for k, v in vars(replica).items() if k != "_handlers"})


def _revive(config: Config, state: dict[str, Any]) -> Replica:
    replica = Replica(config, Meta(), LogView(), 0.0)
    vars(replica).update(state)
    return replica


copyreg.pickle(Replica, _reduce)  # its table of handlers is made anew


# --- exploring -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """How many states were seen at each depth; the way to a broken one, in words, if there is one."""

    per_depth: tuple[int, ...]
    transitions: int
    states: int
    broken: str
    way: tuple[str, ...]


def settled(replicas: int, bounds: Bounds) -> World:
    """A partition that serves: all that can happen without deaths, writes and time was done, in order."""
    world = World(replicas, bounds)
    while not all(n.core is not None and n.core.commit == len(world.committed) - 1 > 0 for n in world.nodes):
        action = next((a for a in world.actions() if a[0] in USUAL[:7]), None)
        if action is not None:
            world.do(action)
            continue
        world.now += 0.5
        for i in range(replicas):
            world.do(("tick", i))
    return world


def explore(start: World, depth: int, *, deviations: int | None = None, most: int = 1 << 40) -> Found:
    """Breadth first from a state, to a depth, or until `most` states were seen.

    With `deviations` only ways that leave what is usual at most so often.
    """
    free = deviations is None
    left = deviations or 0
    seen = {start.key(ticks=not free): left}
    frontier: list[tuple[bytes, tuple[Action, ...], int]] = [(start.dump(), (), left)]
    states, transitions = [1], 0
    for _ in range(depth):
        following: list[tuple[bytes, tuple[Action, ...], int]] = []
        for dumped, way, left in frontier:
            here = load(dumped)
            usual = None if free else here.usual()
            for action in here.actions() if free or left else filter(None, (usual,)):
                world = load(dumped)
                transitions += 1
                try:
                    world.do(action)
                except (BrokenError, AssertionError) as e:
                    said = f"{type(e).__name__}: {e}"
                    return Found(tuple(states), transitions, len(seen), said, tuple(tell(start, (*way, action))))
                key = world.key(ticks=not free)
                remains = left if free or action == usual else left - 1
                if seen.get(key, -1) < remains:
                    seen[key] = remains
                    following.append((world.dump(), (*way, action), remains))
            if len(seen) >= most:
                break
        states.append(len(following))
        frontier = following
        if len(seen) >= most or not frontier:
            break
    return Found(tuple(states), transitions, len(seen), "", ())


def tell(start: World, way: tuple[Action, ...]) -> list[str]:
    """What happens on a way, action by action."""
    world = load(start.dump())
    lines = []
    for number, action in enumerate(way, 1):
        try:
            world.do(action)
        except (BrokenError, AssertionError) as e:
            world.told.append(f">>> {e}")
        first, *rest = world.told
        lines.append(f"{number:3} {world.now:7.1f} s  {first:<12} {'; '.join(rest)}")
    return lines


def main() -> int:
    """Exit code 1 when a state breaks an invariant."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.explore", description=__doc__)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--depth", type=int, default=10)
    parser.add_argument("--deviations", type=int, help="from what is usual; without it every order")
    parser.add_argument("--most", type=int, default=1 << 40, help="end after about so many states")
    for bound in fields(Bounds):
        parser.add_argument(f"--{bound.name}", type=int, default=bound.default)
    arguments = parser.parse_args()
    bounds = Bounds(**{bound.name: getattr(arguments, bound.name) for bound in fields(Bounds)})
    began = time.process_time()
    start = settled(arguments.replicas, bounds)
    found = explore(start, arguments.depth, deviations=arguments.deviations, most=arguments.most)
    took = time.process_time() - began
    print(f"{arguments.replicas} replicas, {bounds}")
    print(
        f"{found.states} states, {found.transitions} transitions, {took:.0f} s of CPU; new per depth: {found.per_depth}"
    )
    if found.broken:
        print("\n".join(["", f"BROKEN: {found.broken}", *found.way]))
    return bool(found.broken)


if __name__ == "__main__":
    sys.exit(main())
