"""What every simulated world keeps: true time, streams of seeded randomness, one timeline, and what was found broken."""

from dataclasses import dataclass
from random import Random
from typing import NoReturn

from tests.simulation.timeline import Line, Mark, Timeline

UNEXPECTED = -1  # no invariant: a scenario expects something else


@dataclass(frozen=True, slots=True)
class Failure:
    """What is broken: the invariant by its number (0: the code raised; UNEXPECTED), when, seen in whose doing."""

    invariant: int
    at: float
    who: str
    what: str

    def __str__(self) -> str:
        return f"at {self.at:.6f} s, {self.who}: {self.name}: {self.what}"

    @property
    def name(self) -> str:
        return {0: "raised", UNEXPECTED: "not as scripted"}.get(self.invariant, f"invariant {self.invariant}")


class SimulationError(AssertionError):
    """An invariant is broken."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class Record:
    """True time, in seconds, known to the simulator alone; machines see it through their clocks.

    Every part draws from a stream of its own, so that leaving out a fault or a request, as shrinking does, changes as
    little as possible of the rest.
    """

    def __init__(self, seed: int, *, verbose: bool = False) -> None:
        self.now = 0.0
        self.seed = seed
        self.verbose = verbose
        self.timeline = Timeline(verbose=verbose)
        self.failure: Failure | None = None  # the first
        self.closing = False  # what is broken from now on is no part of the run
        self._streams: dict[str, Random] = {}

    def stream(self, name: str) -> Random:
        """The randomness of one part of the world."""
        found = self._streams.get(name)
        if found is None:
            found = self._streams[name] = Random(f"{self.seed} {name}")
        return found

    def note(
        self,
        who: str,
        what: str,
        mark: Mark = Mark.NOTE,
        *,
        epoch: int | None = None,
        index: int | None = None,
        link: int = 0,
        detail: bool = False,
    ) -> None:
        """A line of the timeline."""
        self.timeline.add(Line(self.now, who, mark, what, epoch, index, link, detail))

    def broken(self, who: str, invariant: int, what: str) -> Failure:
        """Write down that an invariant is broken (0: that the code raised)."""
        failure = Failure(invariant, self.now, who, what)
        if self.failure is None and not self.closing:
            self.note(who, what, Mark.BROKEN)
            self.failure = failure
        return self.failure or failure

    def fail(self, who: str, invariant: int, what: str) -> NoReturn:
        """An invariant is broken. Raises SimulationError."""
        raise SimulationError(self.broken(who, invariant, what))
