"""Clients that write, read and try again, and write down what they saw."""

from random import Random
from typing import TYPE_CHECKING

from tests.simulation import schedule
from tests.simulation.requests import request_name
from tests.simulation.service import Answer, Asked, Call
from tests.simulation.timeline import Mark
from tests.support.history import FAILED, UNKNOWN, Kind, Outcome

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster
    from tests.simulation.node import Process

DEADLINE = 4.0
WRITES = (Kind.PUT, Kind.PUT, Kind.PUT, Kind.CREATE, Kind.UPDATE, Kind.DELETE)


class Client:
    """One client, one request at a time; a write is tried again under the same (client, sequence).

    What its n-th request is and how it is tried depends on the seed, its number and n alone.
    """

    def __init__(self, cluster: "Cluster", number: int) -> None:
        self.cluster = cluster
        self.loop = cluster.loop
        self.number = number
        self.who = f"client {number}"
        self.sequence = 0
        self.rng = self.loop.stream(self.who)
        self.think = self.rng.choice([0.02, 0.1, 0.3])
        self.versions: dict[bytes, int] = {}  # newest seen, to make conditions of
        self.target = self.rng.choice(cluster.pods)
        self.calls: tuple[Call, ...] = ()
        self.invoked = 0.0
        self.attempt = 0
        self.maybe = False
        self.idle = True
        self.served = 0
        given = cluster.options.requests
        self.given = None if given is None else [a for a in given if a.client == number][::-1]  # the next is the last

    @property
    def request(self) -> str:
        """The name of the one that is under way."""
        return request_name(self.number, self.sequence)

    def start(self) -> None:
        self._think()

    def _think(self) -> None:
        """Have the next request begun when its time has come."""
        if self.given is None:
            self.loop.after(self.rng.random() * self.think * 2, self._next)
        elif self.given:
            self.loop.at(self.given[-1].at, self._next)

    def _next(self) -> None:
        if not self.cluster.load:
            return
        number = self.sequence + 1 if self.given is None else self.given.pop().number
        self.rng = rng = Random(f"{self.loop.seed} {self.who} request {number}")
        if rng.random() < 0.4:
            calls = [Call(Kind.GET, rng.choice(self.cluster.keys))]
        else:
            keys = rng.sample(self.cluster.keys, rng.choice([1, 1, 1, 2]))
            calls = [self._write(key, number) for key in keys]
            if rng.random() < 0.1:
                calls.append(Call(Kind.GET, rng.choice([k for k in self.cluster.keys if k not in keys])))
        self.cluster.asked.append(schedule.Asked(self.number, number, self.loop.now))
        self.ask(tuple(calls), number)

    def _write(self, key: bytes, number: int) -> Call:
        rng = self.rng
        kind = rng.choice(WRITES)
        value = None if kind is Kind.DELETE else b"%d.%d" % (self.number, number) + b"." + key
        expected = None
        if kind is not Kind.CREATE and rng.random() < 0.3:
            expected = rng.choice([self.versions.get(key, 0), self.versions.get(key, 0), 0])
        return Call(kind, key, value, expected)

    def ask(self, calls: tuple[Call, ...], number: int) -> None:
        """Begin a request."""
        self.calls, self.invoked, self.maybe, self.idle = calls, self.loop.now, False, False
        self.sequence = number
        self._try()

    def _try(self) -> None:
        self.attempt += 1
        rng, network = self.rng, self.cluster.network
        attempt, pod = self.attempt, self.target
        lost = rng.random() < 0.005

        def answer(process: "Process", answer: Answer) -> None:
            if not lost:
                self.loop.after(network.delay(process.pod, self.who), self._answered, attempt, process.pod, answer)

        request = Asked(self.number, self.sequence, self.loop.now - self.invoked, self.calls, answer)
        if self.loop.verbose:
            again = self.loop.now > self.invoked
            what = f"asks {pod}{' again' if again else ''} ({self.request}): {'; '.join(map(str, self.calls))}"
            self.loop.note(self.who, what, Mark.CLIENT, detail=again)
        self.loop.after(network.delay(self.who, pod), self._arrive, attempt, pod, request)
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
        rng = self.rng
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
                request=self.request,
            )
            if outcome.version is not None:
                self.versions[call.key] = outcome.version
            if outcome not in (UNKNOWN, FAILED):
                self.served += 1
        if self.loop.verbose:
            told = "; ".join(f"{call} -> {outcome}" for call, outcome in zip(self.calls, outcomes, strict=True))
            self.loop.note(self.who, f"told ({self.request}): {told}", Mark.CLIENT)
        self._think()
