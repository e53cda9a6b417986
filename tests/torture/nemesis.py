"""When which fault strikes: from a seed, a few at a time."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from tests.torture.choice import NoVictimError
from tests.torture.faults import KINDS, Kind
from tests.torture.network import NothingHappenedError
from tests.torture.scene import Scene

AT_ONCE = 4
GAPS = (0.1, 2.0)  # seconds between two faults, least and most
LONGEST = 4  # times as long as asked for that a round goes on for want of faults


def strikes(rng: Random, kinds: Sequence[Kind]) -> Iterator[tuple[Kind, Random, float]]:
    """What strikes next, with randomness of its own, and the seconds until the next: a matter of the seed alone."""
    weights = [kind.weight for kind in kinds]
    while True:
        yield rng.choices(kinds, weights)[0], Random(rng.getrandbits(64)), rng.uniform(*GAPS)


@dataclass(slots=True)
class Log:
    """What was done."""

    done: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)  # faults that did not happen


class Nemesis:
    """Strikes until told to stop; what has begun is healed before it returns."""

    def __init__(self, scene: Scene, rng: Random, clock: Callable[[], float], kinds: Sequence[str] = ()) -> None:
        """`kinds` are the names of the faults to choose from: all when left out."""
        self.scene = scene
        self.log = Log()
        self._rng = rng
        self._clock = clock
        known = {kind.name for kind in KINDS}
        if set(kinds) - known:
            raise ValueError(
                f"{', '.join(sorted(set(kinds) - known))}: no such fault; there are {', '.join(sorted(known))}"
            )
        self._kinds = [kind for kind in KINDS if (not kinds or kind.name in kinds) and kind.needs(scene)]
        self._running: set[asyncio.Task[None]] = set()
        self._began = clock()

    async def run(self, seconds: float, least: int = 0) -> None:
        """Strike for so long, and on until `least` faults were done; then wait until everything is healed.

        A fault that finds no victim is none: after a kill, and with ZooKeeper away, there may be nobody to strike for seconds.
        One whose turn comes while so many are at work is left out: those after it stay what the seed says.
        """
        self._began = self._clock()
        end = self._began + seconds
        last = end + LONGEST * seconds
        coming = strikes(self._rng, self._kinds)
        while self._clock() < end or (self._clock() < last and self.log.done.total() < least):
            kind, rng, gap = next(coming)
            if len(self._running) < AT_ONCE:
                self._strike(kind, rng)
            await asyncio.sleep(gap)
        if self._running:
            await asyncio.wait(self._running)

    def _strike(self, kind: Kind, rng: Random) -> None:
        task = asyncio.create_task(self._carry_out(kind, rng), name=kind.name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _carry_out(self, kind: Kind, rng: Random) -> None:
        began = self._clock() - self._began
        try:
            text = await kind.deed(self.scene, rng)
        except NoVictimError:
            return
        except (NothingHappenedError, TimeoutError) as error:
            self.log.failures.append(f"{began:6.1f} s  {kind.name}: {type(error).__name__} {error}")
            return
        self.log.done[kind.name] += 1
        self.log.lines.append(f"{began:6.1f} s  {text}")
