"""What a person sees of a run, and what is kept of one that failed."""

import json
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from tests.support.history import History, Operation, Result
from tests.support.workload import Report
from tests.torture.nemesis import Log
from tests.torture.upkeep import Upkeep

SHOWN = 12  # violations told of a round; the history has them all


@dataclass(slots=True)
class Round:
    """One round, as far as it came."""

    seed: int
    seconds: float
    history: History
    nemesis: Log = field(default_factory=Log)
    rate: float = 0.0  # acknowledged writes a second before the first fault
    whole_after: float = 0.0  # seconds from the last fault's end
    failovers: int = 0
    exits: int = 0  # of processes that nobody asked to end
    upkeep: Upkeep = field(default_factory=Upkeep)
    breaches: list[str] = field(default_factory=list)
    report: Report | None = None

    @property
    def faults(self) -> int:
        """How many faults happened."""
        return self.nemesis.done.total()

    def count(self, *results: Result) -> int:
        """How many operations ended so."""
        return sum(operation.outcome.result in results for operation in self.history)


class Screen:
    """Lines for a person; `every` so many seconds one of progress."""

    def __init__(self, *, every: float = 10.0, verbose: bool = False, out: TextIO | None = None) -> None:
        self.every = every
        self._verbose = verbose
        self._out = out or sys.stdout

    def say(self, text: str) -> None:
        """One line."""
        print(text, file=self._out, flush=True)

    def progress(self, one: Round, seconds: float, rate: float, last: str) -> None:
        """Where a round is."""
        self.say(
            f"  {seconds:5.0f} s  {one.faults:4} faults  {len(one.history):7,} operations  {rate:4.0f} acknowledged writes/s"
            f"  {one.count(Result.UNKNOWN):4} unknown  {last}"
        )

    def round(self, one: Round) -> None:
        """A round's end."""
        if self._verbose or one.breaches:
            for line in one.nemesis.lines:
                self.say(f"    {line}")
        self.say(
            f"round of seed {one.seed}: {len(one.history):,} operations ({one.rate:.0f} acknowledged writes/s before the first "
            f"fault), {one.faults} faults, {one.failovers} failovers, {one.upkeep.compactions} compactions, {one.count(Result.UNKNOWN)} unknown outcomes, whole again "
            f"after {one.whole_after:.1f} s, {len(one.breaches)} violations"
        )
        self._breaches(one.breaches)
        for text in one.nemesis.failures:
            self.say(f"NOT SHOWN to have happened: {text}")

    def _breaches(self, breaches: Sequence[str]) -> None:
        for breach in breaches[:SHOWN]:
            self.say(f"VIOLATION: {breach}")
        if len(breaches) > SHOWN:
            self.say(f"... and {len(breaches) - SHOWN} more")

    def summary(self, rounds: Sequence[Round], breaches: Sequence[str]) -> None:
        """All rounds together."""
        done = sum((one.nemesis.done for one in rounds), Counter[str]())
        writes = sum(operation.writes for one in rounds for operation in one.history)
        self.say(f"\n{'rounds':<22}{len(rounds)}")
        self.say(f"{'operations':<22}{sum(len(one.history) for one in rounds):,} ({writes:,} acknowledged writes)")
        self.say(f"{'faults':<22}{done.total()}")
        for name, number in done.most_common():
            self.say(f"  {name:<20}{number}")
        self.say(f"{'faults not shown':<22}{sum(len(one.nemesis.failures) for one in rounds)}")
        self.say(f"{'failovers':<22}{sum(one.failovers for one in rounds)}")
        upkeep = sum((one.upkeep for one in rounds), Upkeep())
        self.say(f"{'compactions':<22}{upkeep.compactions} ({upkeep.reclaimed / (1 << 20):.1f} MiB gained)")
        self.say(f"{'  that purged deletes':<22}{upkeep.purges}")
        self.say(f"{'unknown outcomes':<22}{sum(one.count(Result.UNKNOWN) for one in rounds)}")
        self.say(f"{'refused':<22}{sum(one.count(Result.FAILED) for one in rounds)}")
        self.say(f"{'ended by themselves':<22}{sum(one.exits for one in rounds)}")
        self.say(f"{'slowest to be whole':<22}{max(one.whole_after for one in rounds):.1f} s")
        self.say(f"{'violations':<22}{sum(len(one.breaches) for one in rounds) + len(breaches)}")
        self._breaches(breaches)


def keep(folder: Path, to: Path, rounds: Sequence[Round]) -> None:
    """Copy what a failing run leaves: logs, disks, faults, and the last round's history, one operation a line."""
    to.mkdir(parents=True, exist_ok=True)
    for part in ("logs", "disks"):
        shutil.copytree(folder / part, to / part, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.tmp"))
    with (to / "history.jsonl").open("w") as file:
        for operation in rounds[-1].history if rounds else ():
            file.write(json.dumps(_plain(operation)) + "\n")
    (to / "faults.txt").write_text(
        "\n".join(line for one in rounds for line in (f"seed {one.seed}", *one.nemesis.lines)) + "\n"
    )


def _plain(operation: Operation) -> dict[str, object]:
    outcome = operation.outcome
    return {
        "client": operation.client,
        "key": operation.key.decode(),
        "asks": operation.asks,
        "invoked": operation.invoked,
        "returned": operation.returned,
        "result": outcome.result.value,
        "version": outcome.version,
        "value": outcome.value.decode() if outcome.value else None,
    }
