"""A model of the coordination service: one compare-and-set cell, answers that get lost, watches that come late."""

from random import Random
from typing import TYPE_CHECKING, Protocol

from kvcoord.contract import Death, Lost, PartitionState, Won
from kvnode.core.events import CasAnswered, DeathReported, Event, StateSeen
from tests.simulation.loop import Loop
from tests.simulation.timeline import Mark, describe_state

if TYPE_CHECKING:
    from tests.simulation.checks import Checker
    from tests.simulation.node import Process

TIMEOUT = 1.0  # after which a compare-and-set without an answer is called "maybe"


class Caller(Protocol):
    """Who asks coordination: a process, or the operator."""

    who: str

    @property
    def pod(self) -> str: ...

    def deliver(self, item: Event) -> None: ...


class Coordination:
    """The partition's state. `down`: nobody reaches it; `cut`: pods that don't; `slow`: seconds that everything takes."""

    def __init__(self, loop: Loop, state: PartitionState, checker: "Checker", *, calm: bool) -> None:
        self.loop = loop
        self.state = state
        self.version = 0
        self.checker = checker
        self.processes: dict[str, Process] = {}  # those that watch, by pod
        self.seen: dict[str, int] = {}  # version that the watch of this run has shown
        self.deaths: dict[str, Death] = {}
        self.words: set[str] = set()  # runs of which the word was ever given
        self.down = False
        self.cut: dict[str, int] = {}
        self.slow = 0.0
        self.on_way: list[
            tuple[int, PartitionState]
        ] = []  # compare-and-sets that may yet be done, with what they expect
        self.usual_maybe = 0.0 if calm else 0.02
        self.maybe = self.usual_maybe  # share of compare-and-sets that end without an answer
        self.base = 0.001 if calm else loop.stream("coordination").choice([0.001, 0.005, 0.02])

    @property
    def pending(self) -> int:
        """How many compare-and-sets may yet be done."""
        return len(self.on_way)

    def may_name(self, pod: str) -> bool:
        """Whether one that may yet be won names this pod."""
        return any(expected == self.version and pod in state.replicas for expected, state in self.on_way)

    def reachable(self, pod: str) -> bool:
        return not self.down and not self.cut.get(pod)

    def _rng(self, pod: str) -> Random:
        return self.loop.stream(f"coordination {pod}")

    def delay(self, pod: str) -> float:
        rng = self._rng(pod)
        return rng.uniform(0.2, 2.0) * self.base + (rng.random() * self.slow)

    # --- compare and set ---------------------------------------------------------------------------------------------

    def compare_and_set(self, process: Caller, expected: int, state: PartitionState, *, lost: bool = False) -> None:
        """Ask; the answer comes as an event, or "maybe" after a time-out, whether or not it was, or will be, done.

        `lost`: there will be no answer.
        """
        rng, loop = self._rng(process.pod), self.loop
        fate = rng.random()
        if lost or not self.reachable(process.pod) or fate < self.maybe:
            loop.after(TIMEOUT * rng.uniform(0.1, 1.0), self._answer, process, expected, None)
            if rng.random() < (
                0.8 if lost else 0.5
            ):  # on its way, it will be done, some time: even after its sender's death
                self.on_way.append((expected, state))
                loop.after(
                    (3.0 if lost else rng.choice([0.05, 0.5, 3.0])) * rng.random(), self._late, process, expected, state
                )
            return
        self.on_way.append((expected, state))
        loop.after(self.delay(process.pod), self._arrive, process, expected, state)

    def _late(self, process: Caller, expected: int, state: PartitionState) -> None:
        if self.down:
            self.loop.after(0.2, self._late, process, expected, state)
        else:
            self.on_way.remove((expected, state))
            self._apply(process, expected, state)

    def _arrive(self, process: Caller, expected: int, state: PartitionState) -> None:
        self.on_way.remove((expected, state))
        if self.down:
            self.loop.after(TIMEOUT, self._answer, process, expected, None)
            return
        outcome = self._apply(process, expected, state)
        self.loop.after(self.delay(process.pod), self._answer, process, expected, outcome)

    def _apply(self, process: Caller, expected: int, state: PartitionState) -> Won | Lost:
        if expected != self.version:
            return Lost()
        before, self.state = self.state, state
        self.version += 1
        self.loop.note(
            "coordination",
            f"now {describe_state(state)} (asked by {process.who})",
            Mark.COORDINATION,
            epoch=state.epoch,
        )
        self.checker.state_changed(process, before, state)
        self._show_all()
        return Won(self.version)

    def _answer(self, process: Caller, expected: int, outcome: Won | Lost | None) -> None:
        if outcome is not None and not self.reachable(process.pod):
            outcome = None
        process.deliver(CasAnswered(expected, outcome))

    # --- reads and watches -------------------------------------------------------------------------------------------

    def read(self, process: Caller, number: int = 0) -> None:
        """An ordered read; no answer at all while the service is away."""
        if self.reachable(process.pod):
            self.loop.after(self.delay(process.pod), self._read, process, number)

    def _read(self, process: Caller, number: int) -> None:
        if self.reachable(process.pod):
            self.loop.after(self.delay(process.pod), process.deliver, StateSeen(self.state, self.version, number))

    def watch(self, process: "Process") -> None:
        """A process has started: it is shown what is, and from then on what comes."""
        self.processes[process.pod] = process
        self.seen[process.pod] = -1
        self._show(process)

    def _show_all(self) -> None:
        for process in list(self.processes.values()):
            self._show(process)

    def _show(self, process: "Process") -> None:
        self.loop.after(self.delay(process.pod), self._shown, process)

    def _shown(self, process: "Process") -> None:
        if self.processes.get(process.pod) is not process or not self.reachable(process.pod):
            return
        if self.seen[process.pod] < self.version:
            self.seen[process.pod] = self.version
            process.deliver(StateSeen(self.state, self.version))
        for death in list(self.deaths.values()):
            process.deliver(DeathReported(death))

    def back(self) -> None:
        """Something healed: whoever can be reached again is shown what it missed."""
        self._show_all()

    def report_death(self, pod: str, run: str) -> None:
        """The kubelet's word; true ones only."""
        self.words.add(run)
        self.deaths[pod] = Death(pod, run, f"container-{run}", self.state.epoch)
        self.loop.note("kubelet", f"{pod} run {run} is terminated", Mark.FAULT)
        self._show_all()
