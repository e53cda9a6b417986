"""How much the nodes compacted, by their logs: metrics begin anew with each process."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What all nodes together did."""

    compactions: int = 0
    reclaimed: int = 0  # bytes
    purges: int = 0  # compactions that let deletes go

    def __sub__(self, other: "Upkeep") -> "Upkeep":
        return Upkeep(
            self.compactions - other.compactions, self.reclaimed - other.reclaimed, self.purges - other.purges
        )

    def __add__(self, other: "Upkeep") -> "Upkeep":
        return Upkeep(
            self.compactions + other.compactions, self.reclaimed + other.reclaimed, self.purges + other.purges
        )


def done(logs: Path) -> Upkeep:
    """Since the run began."""
    total = Upkeep()
    for log in logs.glob("*.log"):
        for line in _compactions(log):
            total += Upkeep(1, line["bytes_before"] - line["bytes_after"], int(line["purged_to"] > 0))
    return total


def _compactions(log: Path) -> Iterator[dict[str, int]]:
    with log.open(errors="replace") as file:
        for line in file:
            if '"log compacted"' in line:
                yield json.loads(line)
