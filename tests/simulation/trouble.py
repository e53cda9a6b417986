"""What the faults of both worlds share: which kinds a seed knows, when they strike, how they end, and the kinds that look alike.

Each seed has its own choice of kinds ("swarm testing", Groce et al., 2012): some runs have only pauses, some have
everything. Half of the faults aim at the leader or at who is about to be. No fault destroys the last good copy of a
partition: that is data loss by design.

Rare kinds are beside that choice: one seed in a few has a rare kind strike, too, at times of its own, and all others are as
they would be without it.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Generic, Protocol, TypeVar

from kvcommon.numbers import Timing
from tests.simulation.clock import Clock
from tests.simulation.schedule import Options, Struck
from tests.simulation.timeline import Mark

RARE_SHARE = 0.15  # of seeds, for each rare kind
RARE_TIMES = 3  # that such a seed has it strike
RARE_FROM = 1000  # the numbers of rare faults, whatever else a seed has

Way = tuple[str, str]


class Machine(Protocol):
    """What a fault needs to know of its victim."""

    pod: str
    slow_disk: float
    clock: Clock


class Network(Protocol):
    """What can be done to a network."""

    late: dict[Way, float]

    def cut(self, source: str, target: str) -> None: ...

    def heal(self, source: str, target: str) -> None: ...


class Coordination(Protocol):
    """What can be done to coordination."""

    down: bool
    slow: float
    maybe: float
    usual_maybe: float


M = TypeVar("M", bound=Machine)


class Trouble(ABC, Generic[M]):
    """Strikes until it is told to stop, then heals everything."""

    def __init__(
        self,
        loop: Any,
        options: Options,
        kinds: Mapping[str, Callable[[], None]],
        rare: Mapping[str, Callable[[], None]],
    ) -> None:
        self.loop, self.options, self.kinds, self.rare = loop, options, {**kinds, **rare}, tuple(rare)
        rng: Random = loop.stream("faults")
        names = list(kinds)
        self.rng = rng  # of the fault that strikes
        self.chosen = rng.sample(names, rng.choice([2, 4, 6, len(names)]))
        self.often = rng.choice([0.3, 0.7, 1.5])
        self.word_share = rng.choice([0.0, 0.5, 1.0])  # of deaths that the kubelet tells
        self.over = False
        self.heals: list[Callable[[], None]] = []
        self.struck: list[Struck] = []

    # --- what a world says of itself ---------------------------------------------------------------------------------

    @property
    @abstractmethod
    def network(self) -> Network: ...

    @property
    @abstractmethod
    def coordination(self) -> Coordination: ...

    @property
    @abstractmethod
    def unreached(self) -> dict[str, int]:
        """Pods that don't reach coordination, with the number of reasons."""

    @abstractmethod
    def _reach_changed(self, *, better: bool) -> None:
        """Others than before reach coordination."""

    @abstractmethod
    def _victim(self) -> M:
        """Whom the next fault strikes: half of them the leader or a claimant."""

    @abstractmethod
    def _others(self, machine: M) -> list[str]:
        """Whom a machine talks with."""

    @abstractmethod
    def _heal_machines(self) -> None:
        """Every disk is good and fast, what is down comes up."""

    # --- when --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Strike at the times that the seed gives, from now on for as long as the options say."""
        kept = self.options.faults
        kinds = ", ".join(sorted(self.chosen))
        self.loop.note("faults", f"the seed's faults: one in {self.often} s, of {kinds}")
        rng = self.loop.stream("faults")
        at, number = rng.expovariate(1 / self.often), 0
        while at < self.options.seconds:
            kind = rng.choice(self.chosen)
            if kept is None or number in kept:
                self.loop.after(at, self._strike, number, kind)
            at += rng.expovariate(1 / self.often)
            number += 1
        for number, at, kind in self._rare_faults():
            if kept is None or number in kept:
                self.loop.after(at, self._strike, number, kind)

    def _rare_faults(self) -> list[tuple[int, float, str]]:
        """Their numbers, when they strike, and their kinds."""
        found = []
        for place, kind in enumerate(self.rare):
            if self.has_rare(kind):
                rng: Random = self.loop.stream(f"faults {kind}")
                times = [rng.random() * self.options.seconds for _ in range(RARE_TIMES)]
                found += [(RARE_FROM + place * RARE_TIMES + i, at, kind) for i, at in enumerate(times)]
        return found

    def has_rare(self, kind: str) -> bool:
        """Whether this seed has a rare kind strike; a scenario has none."""
        return not self.options.scenario and Random(f"{self.loop.seed} has {kind}").random() < RARE_SHARE

    def _strike(self, number: int, kind: str) -> None:
        if not self.over:
            self.rng = Random(f"{self.loop.seed} fault {number}")
            self.struck.append(Struck(number, self.loop.now, kind))
            self.kinds[kind]()

    def counted(self) -> dict[str, int]:
        """How often each kind there is struck, by the name that reports give it."""
        struck = Counter(s.kind for s in self.struck)
        return {f"fault {kind}": struck[kind] for kind in self.kinds}

    def stop(self) -> None:
        """End every fault; everything that is down comes up."""
        self.over = True
        self._note("all faults end; what is down comes up", Mark.HEAL)
        for heal in self.heals:
            heal()
        self.heals.clear()
        self._heal_machines()

    def _note(self, what: str, mark: Mark = Mark.FAULT, *, pauses: str = "") -> None:
        self.loop.note("faults", what, mark, pauses=pauses)

    def _for(self, seconds: float, heal: Callable[[], None]) -> Callable[[], None]:
        """End a fault after a time, or at the end of all, or when what this gives is called: whichever is first."""
        done = False

        def once() -> None:
            nonlocal done
            if not done:
                done = True
                heal()

        self.heals.append(once)
        self.loop.after(seconds, once)
        return once

    def _length(self) -> float:
        """Shorter than a heartbeat, about a lease, or much longer."""
        return self.rng.choice([0.1, 0.7, 1.5, 2.5, 5.0]) * self.rng.uniform(0.5, 1.5)

    # --- network -----------------------------------------------------------------------------------------------------

    def _cut(self, ways: list[Way], length: float) -> Callable[[], None]:
        network = self.network
        for source, target in ways:
            network.cut(source, target)

        def heal() -> None:
            self._note(", ".join(f"{a} -> {b}" for a, b in ways), Mark.HEAL)
            for source, target in ways:
                network.heal(source, target)

        return self._for(length, heal)

    def _way(self) -> Way:
        """From the victim to one of the others, or back."""
        machine = self._victim()
        other = self.rng.choice(self._others(machine))
        return (machine.pod, other) if self.rng.random() < 0.5 else (other, machine.pod)

    def isolate(self) -> None:
        """Both ways between one and all, or one, of the others."""
        machine = self._victim()
        pod, others = machine.pod, self._others(machine)
        if self.rng.random() < 0.5:
            others = [self.rng.choice(others)]
        length = self._length()
        self._note(f"{pod} and {','.join(others)} cut off for {length:.2f} s")
        self._cut([(pod, o) for o in others] + [(o, pod) for o in others], length)
        if self.rng.random() < 0.3:
            self._cut_coordination(pod, length)

    def one_way(self) -> None:
        way, length = self._way(), self._length()
        self._note(f"{way[0]} -> {way[1]} cut for {length:.2f} s")
        self._cut([way], length)

    def slow_way(self) -> None:
        """What one says to another comes late, in order."""
        way, seconds = self._way(), self.rng.choice([0.2, 0.7, 1.5])
        late = self.network.late
        late[way] = seconds
        self._note(f"{way[0]} -> {way[1]} takes {seconds} s")
        self._for(self._length(), lambda: late.update({way: 0.0}))

    # --- coordination ------------------------------------------------------------------------------------------------

    def coordination_down(self) -> None:
        coordination, length = self.coordination, self._length()
        if coordination.down:
            return
        coordination.down = True
        self._reach_changed(better=False)
        self._note(f"coordination away for {length:.2f} s")

        def heal() -> None:
            self._note("coordination is back", Mark.HEAL)
            coordination.down = False
            self._reach_changed(better=True)

        self._for(length, heal)

    def coordination_cut(self) -> None:
        self._cut_coordination(self._victim().pod, self._length())

    def _cut_coordination(self, pod: str, length: float) -> Callable[[], None]:
        unreached = self.unreached
        unreached[pod] = unreached.get(pod, 0) + 1
        self._reach_changed(better=False)
        self._note(f"{pod} does not reach coordination for {length:.2f} s")

        def heal() -> None:
            unreached[pod] -= 1
            self._reach_changed(better=True)

        return self._for(length, heal)

    def coordination_slow(self) -> None:
        coordination = self.coordination
        coordination.slow = self.rng.choice([0.1, 1.0, 3.0])
        self._note(f"coordination takes up to {coordination.slow} s")
        self._for(self._length(), lambda: setattr(coordination, "slow", 0.0))

    def maybe(self) -> None:
        coordination = self.coordination
        coordination.maybe = 0.5
        self._note("half of all changes of coordination get no answer")
        self._for(self._length(), lambda: setattr(coordination, "maybe", coordination.usual_maybe))

    # --- clocks ------------------------------------------------------------------------------------------------------

    def clock_rate(self) -> None:
        """From now on a machine's clock runs at another rate, within the assumed bound, as when it is slewed."""
        machine, error = self._victim(), Timing().clock_rate_error
        rate = 1 + self.rng.choice([-error, error, self.rng.uniform(-error, error)])
        if "clocks" not in self.options.calm:
            machine.clock.run_at(rate)
            self._note(f"the clock of {machine.pod} runs at {rate:.4f}")

    # --- disks -------------------------------------------------------------------------------------------------------

    def slow_disk(self) -> None:
        machine = self._victim()
        machine.slow_disk = self.rng.choice([0.05, 0.5, 3.0])
        self._note(f"syncs of {machine.pod} take up to {machine.slow_disk} s")
        self._for(self._length(), lambda: setattr(machine, "slow_disk", 0.0))
