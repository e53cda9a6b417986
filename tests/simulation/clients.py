"""Clients that write, read and try again, and write down what they saw."""

from typing import TYPE_CHECKING

from tests.simulation.service import Answer, Asked, Call
from tests.support.history import FAILED, UNKNOWN, Kind, Outcome

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster
    from tests.simulation.node import Process

DEADLINE = 4.0
WRITES = (Kind.PUT, Kind.PUT, Kind.PUT, Kind.CREATE, Kind.UPDATE, Kind.DELETE)


class Client:
    """One client, one request at a time; a write is tried again under the same (client, sequence)."""

    def __init__(self, cluster: "Cluster", number: int) -> None:
        self.cluster = cluster
        self.loop = cluster.loop
        self.number = number
        self.sequence = 0
        self.think = self.loop.rng.choice([0.02, 0.1, 0.3])
        self.versions: dict[bytes, int] = {}  # newest seen, to make conditions of
        self.target = self.loop.rng.choice(cluster.pods)
        self.calls: tuple[Call, ...] = ()
        self.invoked = 0.0
        self.attempt = 0
        self.maybe = False
        self.idle = True
        self.served = 0

    def start(self) -> None:
        self.loop.after(self.loop.rng.random() * self.think * 2, self._next)

    def _next(self) -> None:
        if not self.cluster.load:
            return
        rng = self.loop.rng
        if rng.random() < 0.4:
            self.ask((Call(Kind.GET, rng.choice(self.cluster.keys)),))
        else:
            keys = rng.sample(self.cluster.keys, rng.choice([1, 1, 1, 2]))
            calls = [self._write(key) for key in keys]
            if rng.random() < 0.1:
                calls.append(Call(Kind.GET, rng.choice([k for k in self.cluster.keys if k not in keys])))
            self.ask(tuple(calls))

    def _write(self, key: bytes) -> Call:
        rng = self.loop.rng
        kind = rng.choice(WRITES)
        value = None if kind is Kind.DELETE else b"%d.%d" % (self.number, self.sequence + 1) + b"." + key
        expected = None
        if kind is not Kind.CREATE and rng.random() < 0.3:
            expected = rng.choice([self.versions.get(key, 0), self.versions.get(key, 0), 0])
        return Call(kind, key, value, expected)

    def ask(self, calls: tuple[Call, ...]) -> None:
        """Begin a request."""
        self.calls, self.invoked, self.maybe, self.idle = calls, self.loop.now, False, False
        self.sequence += 1
        self._try()

    def _try(self) -> None:
        self.attempt += 1
        rng = self.loop.rng
        attempt = self.attempt

        def answer(process: "Process", answer: Answer) -> None:
            if rng.random() > 0.005:  # else the answer is lost
                self.loop.after(self.cluster.network.delay(), self._answered, attempt, process.pod, answer)

        request = Asked(self.number, self.sequence, self.loop.now - self.invoked, self.calls, answer)
        self.loop.after(self.cluster.network.delay(), self._arrive, attempt, self.target, request)
        self.loop.after(rng.choice([0.3, 0.6, 1.2]), self._timed_out, attempt)

    def _arrive(self, attempt: int, pod: str, request: Asked) -> None:
        process = self.cluster.running(pod)
        if process is None:
            self._answered(attempt, pod, Answer())
        else:
            process.deliver(request)

    def _timed_out(self, attempt: int) -> None:
        self._answered(attempt, self.target, Answer(maybe=True))

    def _answered(self, attempt: int, pod: str, answer: Answer) -> None:
        if attempt != self.attempt or self.idle:
            return
        if answer.outcomes:
            self._end(answer.outcomes)
            return
        self.attempt += 1  # whatever else comes of this attempt is too late
        self.maybe = self.maybe or answer.maybe
        if self.loop.now - self.invoked > DEADLINE:
            self._end(tuple(UNKNOWN if self.maybe else FAILED for _ in self.calls))
            return
        rng = self.loop.rng
        self.target = rng.choice(self.cluster.pods)
        leader = self.cluster.coordination.state.leader
        if leader is not None and rng.random() < 0.5:
            self.target = leader.replica.pod  # as the router that watches the state would
        self.loop.after(rng.uniform(0.01, 0.1), self._try)

    def _end(self, outcomes: tuple[Outcome, ...]) -> None:
        self.idle = True
        for call, outcome in zip(self.calls, outcomes, strict=True):
            self.cluster.history.record(
                self.number,
                call.key,
                call.kind,
                invoked=self.invoked,
                returned=self.loop.now,
                outcome=outcome,
                value=call.value,
                expected_version=call.expected_version,
            )
            if outcome.version is not None:
                self.versions[call.key] = outcome.version
            if outcome not in (UNKNOWN, FAILED):
                self.served += 1
        if self.loop.verbose:
            asked = "; ".join(f"{c.kind.value} {c.key!r} {c.value!r} if {c.expected_version}" for c in self.calls)
            self.loop.note(f"client {self.number}", f"{asked} -> {'; '.join(map(str, outcomes))}")
        self.loop.after(self.loop.rng.random() * self.think * 2, self._next)
