"""When which fault strikes: from a seed, a few at a time."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from tests.torture.choice import NoVictimError
from tests.torture.faults import KINDS, Kind
from tests.torture.network import NothingHappenedError
from tests.torture.scene import Scene

AT_ONCE = 4
GAPS = (0.1, 2.0)  # seconds between two faults, least and most
LONGEST = 4  # times as long as asked for that a round goes on for want of faults


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
        """
        self._began = self._clock()
        end = self._began + seconds
        last = end + LONGEST * seconds
        while self._clock() < end or (self._clock() < last and self.log.done.total() < least):
            if len(self._running) < AT_ONCE:
                self._strike()
            await asyncio.sleep(self._rng.uniform(*GAPS))
        if self._running:
            await asyncio.wait(self._running)

    def _strike(self) -> None:
        kind = self._rng.choices(self._kinds, [kind.weight for kind in self._kinds])[0]
        task = asyncio.create_task(self._carry_out(kind, Random(self._rng.getrandbits(64))), name=kind.name)
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
