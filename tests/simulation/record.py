"""What every simulated world keeps: true time, streams of seeded randomness, one timeline, and what was found broken."""

from dataclasses import dataclass
from random import Random
from typing import NoReturn

from tests.simulation.raised import frames_of
from tests.simulation.timeline import Line, Mark, Timeline

RAISED = 0  # no invariant: the code raised
UNEXPECTED = -1  # no invariant: a scenario expects something else


@dataclass(frozen=True, slots=True)
class Failure:
    """What is broken: the invariant by its number (RAISED, UNEXPECTED: none), when, seen in whose doing.

    `error` is what the code raised, if that is what is broken; `frames` are where an error was raised that has to do with it.
    """

    invariant: int
    at: float
    who: str
    what: str
    error: str = ""
    frames: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"at {self.at:.6f} s, {self.who}: {self.name}: {self.what}"

    @property
    def name(self) -> str:
        return {RAISED: "raised", UNEXPECTED: "not as scripted"}.get(self.invariant, f"invariant {self.invariant}")

    def is_like(self, other: "Failure") -> bool:
        """Whether the same invariant is broken, or an error of the same type was raised."""
        return (self.invariant, self.error.partition(":")[0]) == (other.invariant, other.error.partition(":")[0])


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
        pauses: str = "",
    ) -> None:
        """A line of the timeline."""
        self.timeline.add(Line(self.now, who, mark, what, epoch, index, link, detail, pauses))

    def broken(self, who: str, invariant: int, what: str, error: BaseException | None = None) -> Failure:
        """Write down that an invariant is broken, by an error that must not be raised here if there is one."""
        frames = () if error is None else frames_of(error)
        return self._first(Failure(invariant, self.now, who, what, frames=frames))

    def raised(self, who: str, doing: str, error: BaseException) -> Failure:
        """Write down that the code raised, which it must not, whatever happens; doing what."""
        told = f"{type(error).__name__}: {error}"
        return self._first(Failure(RAISED, self.now, who, f"{doing} raised {told}", told, frames_of(error)))

    def _first(self, failure: Failure) -> Failure:
        """The first failure is the one that counts."""
        who, what = failure.who, failure.what
        if self.failure is None and not self.closing:
            self.note(who, what, Mark.BROKEN)
            self.failure = failure
        return self.failure or failure

    def fail(self, who: str, invariant: int, what: str, error: BaseException | None = None) -> NoReturn:
        """An invariant is broken. Raises SimulationError."""
        raise SimulationError(self.broken(who, invariant, what, error))
