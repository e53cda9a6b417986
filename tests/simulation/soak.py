"""Simulate until stopped, on all cores: `python -m tests.simulation.soak`. Failing seeds are kept, shrunk and drawn."""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from tests.simulation.explain import explain
from tests.simulation.picture import draw
from tests.simulation.raised import frames_of
from tests.simulation.report import Report
from tests.simulation.run import simulate
from tests.simulation.schedule import Options, World
from tests.simulation.shrink import shrink

CHUNK = 20  # seeds that a process takes at once
WORLDS: tuple[tuple[World, int], ...] = (  # with so many replicas, in turn
    ("core", 3),
    ("whole", 3),
    ("core", 2),
    ("whole", 2),
    ("store", 3),
    ("core", 5),
    ("whole", 3),
    ("store", 2),
)


@dataclass(frozen=True, slots=True)
class Done:
    """What a chunk of seeds came to. `failed`: commands with what was broken."""

    seeds: int
    operations: int
    faults: int
    failed: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Totals:
    """Of all chunks."""

    started: float
    seeds: int = 0
    operations: int = 0
    faults: int = 0
    failures: int = 0

    def add(self, done: Done) -> None:
        self.seeds += done.seeds
        self.operations += done.operations
        self.faults += done.faults
        self.failures += len(done.failed)

    def line(self, now: float) -> str:
        """Progress, for a person."""
        took = max(now - self.started, 1e-9)
        return (
            f"{took:7.0f} s  {self.seeds} seeds  {self.operations} operations  {self.faults} faults  "
            f"{self.seeds / took:.1f} seeds/s  {self.failures} failures"
        )


def run_chunk(seeds: range, folder: Path) -> Done:
    """Simulate these seeds; what fails is kept in the folder, at once."""
    operations = faults = 0
    failed = []
    for seed in seeds:
        world, replicas = WORLDS[seed // CHUNK % len(WORLDS)]
        report = simulate(Options(seed, replicas, world=world))
        operations += report.operations
        faults += len(report.faults)
        if report.failure is not None:
            failed.append((report.options.command, str(report.failure)))
            _keep(folder, report)
    return Done(len(seeds), operations, faults, tuple(failed))


def _keep(folder: Path, report: Report) -> None:
    """A line in failures.jsonl before anything else; then the run in words and drawn, shrunk if that can be done."""
    options, failure = report.options, report.failure
    assert failure is not None
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "failures.jsonl").open("a") as kept:
        kept.write(json.dumps({"command": options.command, "failure": str(failure)}) + "\n")
    name = f"{options.world}-{options.seed}-{options.replicas}-replicas"
    found_by = f"found by: {options.command}\n\n"
    try:
        shown = simulate(replace(shrink(report).options, verbose=True))
        words, picture = explain(shown), draw(shown)
    except Exception as e:  # of the tools that show it: the soak goes on
        trouble = (f"It can't be shrunk or drawn: {type(e).__name__}: {e}", *frames_of(e))
        (folder / f"{name}.txt").write_text(found_by + "\n".join((str(failure), *failure.frames, "", *trouble, "")))
        return
    (folder / f"{name}.txt").write_text(f"{found_by}{words}\n")
    (folder / f"{name}.html").write_text(picture)


def main() -> int:
    """Exit code 1 when something failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.soak", description=__doc__)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, default=Path(".kvcluster/soak"), help="where failures are kept")
    parser.add_argument("--first", type=int, help="the first seed; by default another one each time")
    parser.add_argument("--seeds", type=int, help="end after about so many")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between lines of progress")
    arguments = parser.parse_args()
    first = arguments.first if arguments.first is not None else int(time.time()) * 1000
    print(f"from seed {first} on {arguments.processes} processes; failures go to {arguments.folder}; Ctrl-C ends")
    totals = soak(_chunks(first, arguments.seeds), arguments.folder, arguments.processes, arguments.every)
    return bool(totals.failures)


def _chunks(first: int, most: int | None) -> Iterator[range]:
    seed = first
    while most is None or seed < first + most:
        yield range(seed, seed + CHUNK)
        seed += CHUNK


def soak(chunks: Iterator[range], folder: Path, processes: int, every: float) -> Totals:
    """Until the chunks end, or SIGINT or SIGTERM; what is under way then is finished."""
    stopping = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    totals = Totals(time.monotonic())
    told = totals.started
    running: set[Future[Done]] = set()
    try:
        with ProcessPoolExecutor(processes, initializer=_ignore_signals) as pool:
            while True:
                while not stopping and len(running) < 2 * processes and (chunk := next(chunks, None)) is not None:
                    running.add(pool.submit(run_chunk, chunk, folder))
                if not running:
                    break
                done, running = wait(running, timeout=every, return_when=FIRST_COMPLETED)
                for future in done:
                    result = future.result()
                    totals.add(result)
                    for command, failure in result.failed:
                        print(f"FAILED {failure[:300]}\n    {command}", flush=True)
                if time.monotonic() - told >= every:
                    told = time.monotonic()
                    print(totals.line(told), flush=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    print(f"ended: {totals.line(time.monotonic())}", flush=True)
    return totals


def _ignore_signals() -> None:
    """The parent is the one that is asked to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
