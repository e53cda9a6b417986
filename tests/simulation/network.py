"""Connections between processes: in order within one, any delay, one-way cuts, breaks that each end learns by itself."""

from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from kvcoord.contract import RunId
from kvnode.core.events import Dialed, DialFailed, Disconnected, Received
from kvnode.core.messages import Ack, Append, Message
from tests.simulation.loop import Loop
from tests.simulation.timeline import Mark, describe

if TYPE_CHECKING:
    from tests.simulation.node import Process


def frequent(message: Message) -> bool:
    """Whether it is one of very many: a heartbeat or an acknowledgement."""
    return isinstance(message, Ack) or (isinstance(message, Append) and not message.batches)


END = None  # in a queue: the sender closed


class Side:
    """One end of a connection, and what is on its way to the other."""

    def __init__(self, process: "Process", number: int) -> None:
        self.process = process
        self.number = number
        self.open = True
        self.broken = False  # nothing that is sent from now on arrives
        self.queue: deque[tuple[Message | None, int]] = deque()  # sent by this side, not yet delivered, with its link
        self.last = 0.0


class Connection:
    """Two sides; what is sent while the way is cut waits, and comes in order if the connection outlives the cut."""

    def __init__(self, network: "Network", dialer: Side, acceptor: Side) -> None:
        self.network = network
        self.sides = (dialer, acceptor)

    def other(self, side: Side) -> Side:
        return self.sides[1] if side is self.sides[0] else self.sides[0]

    def send(self, side: Side, message: Message | None) -> None:
        if not side.open or side.broken:
            return
        loop, way = self.network.loop, (side.process.pod, self.other(side).process.pod)
        link = loop.timeline.link()
        if message is not END and loop.verbose:
            what = f"sends {self.other(side).process.who} {describe(message)}"
            side.process.note(what, Mark.SEND, link=link, detail=frequent(message))
        if message is not END and self.network.unruly and self._unruly(side, message, way):
            return
        side.queue.append((message, link))
        side.last = max(side.last, loop.now + self.network.delay(*way) + self.network.late.get(way, 0.0))
        loop.at(side.last, self.flow, side)

    def _unruly(self, side: Side, message: Message, way: tuple[str, str]) -> bool:
        """A frame may be lost, come twice, or late, behind those that were sent after it; whether it goes its own way."""
        rng = self.network.rng(*way)
        if rng.random() >= self.network.unruly:
            return False
        fate = rng.choice(["lost", "twice", "late"])
        if self.network.loop.verbose:
            side.process.note(f"its next message to {way[1]} is {fate}", Mark.ASTRAY)
        if fate != "lost":
            late = rng.choice([0.0, 0.05, 1.0]) * rng.random()
            self.network.loop.after(self.network.delay(*way) + late, self._arrive, side, message)
        return fate != "twice"

    def _arrive(self, side: Side, message: Message) -> None:
        """Out of its turn."""
        other = self.other(side)
        if (
            other.open
            and other.process.alive
            and not side.broken
            and not self.network.is_cut(side.process.pod, other.process.pod)
        ):
            other.process.deliver(Received(other.number, message))

    def flow(self, side: Side) -> None:
        """Deliver the oldest message of this side, if the way is free."""
        other = self.other(side)
        if not side.queue or self.network.is_cut(side.process.pod, other.process.pod):
            return
        message, link = side.queue.popleft()
        if not other.open:
            return
        if message is END:
            self.end(other)
        elif other.process.alive:
            if self.network.loop.verbose:
                what = f"gets from {side.process.who} {describe(message)}"
                other.process.note(what, Mark.RECEIVE, link=link, detail=frequent(message))
            other.process.deliver(Received(other.number, message))

    def flow_all(self) -> None:
        """A cut healed: everything that waited, in order."""
        for side in self.sides:
            while side.queue and not self.network.is_cut(side.process.pod, self.other(side).process.pod):
                self.flow(side)

    def end(self, side: Side) -> None:
        """This side learns that the connection is over."""
        if side.open:
            side.open = False
            side.process.connections.pop(side.number, None)
            if side.process.alive:
                side.process.deliver(Disconnected(side.number))

    def close(self, side: Side) -> None:
        """This side ends it, after what it sent."""
        self.send(side, END)
        self.end(side)

    def break_(self) -> None:
        """Both sides learn it, each in its own time; what is on its way may be lost."""
        loop = self.network.loop
        for side in self.sides:
            rng = self.network.rng(side.process.pod, self.other(side).process.pod)
            side.broken = True
            if rng.random() < 0.5:
                side.queue.clear()
            loop.after(rng.random() * 0.05, self.end, side)


class Network:
    """All connections, and which ways are cut: `cuts[source, target]` counts the reasons."""

    def __init__(self, loop: Loop, find: "Callable[[str], Process | None]", *, calm: bool) -> None:
        self.loop = loop
        self.find = find  # the running process of a pod
        self.connections: list[Connection] = []
        self.cuts: dict[tuple[str, str], int] = {}
        self.unruly = 0.0  # share of messages that are lost, doubled or out of order, which TCP would not do
        self.late: dict[tuple[str, str], float] = {}  # ways that take so many seconds more
        rng = loop.stream("network")
        self.calm = calm
        self.base = 0.001 if calm else rng.choice([0.0003, 0.001, 0.005])
        self.slow_share = 0.0 if calm else rng.choice([0.0, 0.0, 0.002, 0.02])
        self.slow = rng.choice([0.1, 0.5, 2.5])
        self._rngs: dict[tuple[str, str], Random] = {}

    def rng(self, source: str, target: str) -> Random:
        """The randomness of one way."""
        found = self._rngs.get((source, target))
        if found is None:
            found = self._rngs[source, target] = self.loop.stream(f"way {source} {target}")
        return found

    def delay(self, source: str, target: str) -> float:
        rng = self.rng(source, target)
        if self.slow_share and rng.random() < self.slow_share:
            return rng.random() * self.slow
        return self.base * (0.2 + rng.random() * 1.6)

    def is_cut(self, source: str, target: str) -> bool:
        return bool(self.cuts.get((source, target)))

    def dial(self, process: "Process", to: RunId) -> None:
        """Connect to whatever runs at the address that this run had."""
        pod = to.replica.pod
        rng = self.rng(process.pod, pod)
        if rng.random() < 0.02 and not self.calm:  # addresses are reused: somebody else answers
            pod = rng.choice([p for p in process.machine.cluster.pods if p != process.pod])
        self.loop.after(self.delay(process.pod, pod) * 2, self._connect, process, to, pod)

    def _connect(self, process: "Process", to: RunId, pod: str) -> None:
        target = self.find(pod)
        if target is None or not target.alive or self.is_cut(process.pod, pod) or self.is_cut(pod, process.pod):
            self.loop.after(self.rng(process.pod, pod).choice([0.0, 0.1, 1.0]), process.deliver, DialFailed(to))
            return
        if not process.alive:
            return
        dialer, acceptor = Side(process, process.number()), Side(target, target.number())
        connection = Connection(self, dialer, acceptor)
        process.connections[dialer.number] = (connection, dialer)
        target.connections[acceptor.number] = (connection, acceptor)
        self.connections = [c for c in self.connections if c.sides[0].open or c.sides[1].open]
        self.connections.append(connection)
        process.deliver(Dialed(dialer.number, to))

    def gone(self, process: "Process", *, silently: bool) -> None:
        """A process ended. Its machine says so for it, unless it is gone, too."""
        rng = self.loop.stream(f"end of {process.who}")
        for connection, side in list(process.connections.values()):
            if silently:
                side.open = False
                self.loop.after(rng.uniform(0.5, 6.0), connection.break_)
            else:
                connection.close(side)
        process.connections.clear()

    def cut(self, source: str, target: str) -> None:
        self.cuts[source, target] = self.cuts.get((source, target), 0) + 1

    def heal(self, source: str, target: str) -> None:
        """End one reason; connections that waited go on, or turn out to be broken."""
        self.cuts[source, target] -= 1
        if self.is_cut(source, target):
            return
        for connection in self.connections:
            pods = {connection.sides[0].process.pod, connection.sides[1].process.pod}
            if pods == {source, target}:
                if self.rng(source, target).random() < 0.4:
                    connection.break_()
                else:
                    connection.flow_all()
