"""Replay or hunt: `python -m tests.simulation --seed N` prints the timeline, `--seeds A..B` tries many."""

import argparse
import json
import re
import sys
import time
from collections import Counter
from dataclasses import replace

import kvnode.core
from tests.simulation.cluster import Options, Report, simulate

SHOWN = 12  # failures of a hunt


def main() -> int:
    """Run one seed with its timeline, or many with one line per failure. Exit code 1 when something failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", help="A..B, B not included")
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--keys", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--stop", action="store_true", help="end at the first failure")
    parser.add_argument("--json", action="store_true", help="with --seeds: one line for programs")
    parser.add_argument("--last", type=int, help="show only so many lines of the timeline")
    arguments = parser.parse_args()
    sizes = Options(arguments.seed or 0, arguments.replicas, arguments.clients, arguments.keys, arguments.seconds)
    if arguments.seeds is None:
        report = simulate(replace(sizes, verbose=True))
        lines = report.timeline.splitlines()
        print("\n".join(lines[-arguments.last :] if arguments.last else lines))
        print(f"{report.operations} operations, {report.served} served; {report.counts}")
        print(f"FAILED {report.failure}" if report.failure else f"good; whole again after {report.healed_after:.2f} s")
        return bool(report.failure)
    first, last = map(int, arguments.seeds.split(".."))
    return hunt(range(first, last), sizes, stop=arguments.stop, as_json=arguments.json)


def hunt(seeds: range, sizes: Options, *, stop: bool, as_json: bool) -> int:
    """Try many seeds; gives 1 when any failed."""
    started = time.process_time()
    failures: list[Report] = []
    totals: Counter[str] = Counter()
    served = tried = 0
    worst = 0.0
    for seed in seeds:
        report = simulate(replace(sizes, seed=seed))
        tried += 1
        served += report.served
        worst = max(worst, report.healed_after)
        totals.update(report.counts)
        if report.failure:
            failures.append(report)
            if not as_json and len(failures) <= SHOWN:
                print(f"{report.failure[:300]}\n    {report.options.command}", flush=True)
            if stop:
                break
    if as_json:
        by = Counter(_check_of(r.failure) for r in failures)
        first = failures[0].options.seed if failures else -1
        core = str(kvnode.core.__file__)
        print(json.dumps({"seeds": tried, "failed": len(failures), "first": first, "by": by, "core": core}))
        return bool(failures)
    took = time.process_time() - started
    print(
        f"{tried} seeds, {len(failures)} failed, {served} operations served, {took:.1f} s of CPU; "
        f"slowest to heal {worst:.2f} s"
    )
    print(", ".join(f"{what} {number}" for what, number in sorted(totals.items())))
    return bool(failures)


def _check_of(failure: str) -> str:
    """The invariant that a failure names, or that the core raised."""
    found = re.search(r"invariant \d+", failure)
    return found[0] if found else "raised"


if __name__ == "__main__":
    sys.exit(main())
