"""Replay or hunt: `python -m tests.simulation --seed N` prints the timeline, `--seeds A..B` tries many."""

import argparse
import sys
import time

from tests.simulation.cluster import Options, simulate

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
    parser.add_argument("--last", type=int, help="show only so many lines of the timeline")
    arguments = parser.parse_args()
    sizes = {name: getattr(arguments, name) for name in ("replicas", "clients", "keys", "seconds")}
    if arguments.seeds is None:
        report = simulate(Options(arguments.seed or 0, verbose=True, **sizes))
        lines = report.timeline.splitlines()
        print("\n".join(lines[-arguments.last :] if arguments.last else lines))
        print(f"{report.operations} operations, {report.served} served; {report.counts}")
        print(f"FAILED {report.failure}" if report.failure else f"good; whole again after {report.healed_after:.2f} s")
        return bool(report.failure)
    first, last = map(int, arguments.seeds.split(".."))
    return hunt(range(first, last), sizes, stop=arguments.stop)


def hunt(seeds: range, sizes: dict[str, int], *, stop: bool) -> int:
    """Try many seeds; gives 1 when any failed."""
    started, failed, totals, served, worst = time.process_time(), 0, dict[str, int](), 0, 0.0
    for seed in seeds:
        report = simulate(Options(seed, **sizes))  # type: ignore[arg-type]
        served += report.served
        worst = max(worst, report.healed_after)
        for what, number in report.counts.items():
            totals[what] = totals.get(what, 0) + number
        if report.failure:
            failed += 1
            if failed > SHOWN:
                continue
            print(f"{report.failure[:300]}\n    {report.options.command}", flush=True)
            if stop:
                break
    took = time.process_time() - started
    print(
        f"{len(seeds)} seeds, {failed} failed, {served} operations served, {took:.1f} s of CPU; slowest to heal {worst:.2f} s"
    )
    print(", ".join(f"{what} {number}" for what, number in sorted(totals.items())))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
