"""A seed's list of operations. Each has a number, and randomness of its own, so that any can be left out."""

from dataclasses import dataclass
from random import Random

from tests.simulation.schedule import Options

STEP = 0.1  # seconds of virtual time from one operation to the next

ORDINARY = {
    "write": 6,
    "flush": 5,
    "feed": 7,
    "commit": 6,
    "in step": 4,
    "tidy": 9,
    "read the log": 2,
    "verify": 1,
    "save state": 2,
    "join": 3,
    "start": 6,
    "restart": 1,
    "lead": 1,
    "cut too deep": 1,
}
FAULTS = (
    "kill",
    "power off",
    "power off in the middle",
    "power off in upkeep",
    "power off in a start",
    "power off of all",
    "failed sync",
    "failed write",
    "no room",
    "unreadable place",
    "turned bit",
    "turned bit at rest",
    "wipe",
    "long away",
)


@dataclass(frozen=True, slots=True)
class Operation:
    """What is done, by or to which replica."""

    number: int
    kind: str
    replica: int
    fault: bool

    @property
    def at(self) -> float:
        return round(self.number * STEP, 3)

    def rng(self, seed: int) -> Random:
        return Random(f"{seed} operation {self.number}")


def operations(options: Options) -> list[Operation]:
    """All that the seed gives, or those that the options name: some kinds of faults, and how often they strike."""
    rng = Random(f"{options.seed} plan")
    faults = rng.sample(FAULTS, rng.randint(1, len(FAULTS)))
    share = rng.choice([0.02, 0.05, 0.1, 0.2])
    kinds, weights = list(ORDINARY), list(ORDINARY.values())
    asked = None if options.requests is None else {r.number for r in options.requests}
    found = []
    for number in range(int(options.seconds / STEP)):
        fault = rng.random() < share
        kind = rng.choice(faults) if fault else rng.choices(kinds, weights)[0]
        operation = Operation(number, kind, rng.randrange(options.replicas), fault)
        wanted = options.faults if fault else asked
        if wanted is None or number in wanted:
            found.append(operation)
    return found
