"""Replay or hunt: `--seed N` prints what happened, `--seeds A..B` tries many; see docs/correctness.md."""

import argparse
import json
import signal
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import kvnode.core
from tests.simulation.explain import explain
from tests.simulation.picture import draw
from tests.simulation.report import Report
from tests.simulation.run import simulate
from tests.simulation.schedule import Options, parse_calm, parse_faults, parse_requests
from tests.simulation.shrink import shrink

SHOWN = 12  # failures of a hunt


def main() -> int:
    """Run one seed with its timeline, or many with one line per failure. Exit code 1 when something failed."""
    arguments = _parser().parse_args()
    options = _options(arguments)
    if arguments.seeds is None:
        return _replay(options, arguments)
    first, last = map(int, arguments.seeds.split(".."))
    return hunt(range(first, last), options, stop=arguments.stop, as_json=arguments.json)


def _options(arguments: argparse.Namespace) -> Options:
    if arguments.scenario is not None:
        from tests.simulation.whole.scenarios import SCENARIOS  # takes a second to import

        if arguments.scenario not in SCENARIOS:
            raise SystemExit(f"there is no scenario {arguments.scenario!r}; there are {', '.join(SCENARIOS)}")
        return SCENARIOS[arguments.scenario].options(arguments.seed or 1)
    return Options(
        arguments.seed or 0,
        arguments.replicas,
        arguments.clients,
        arguments.keys,
        arguments.seconds,
        world=arguments.world,
        calm=arguments.calm,
        faults=arguments.faults,
        requests=arguments.requests,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument(
        "--world",
        choices=("core", "whole", "store"),
        default="core",
        help="one partition's core, a whole cluster, or stores that copy each other's logs",
    )
    parser.add_argument("--scenario", help="what happens to a whole cluster: tests/simulation/whole/scenarios.py")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", help="A..B, B not included")
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--keys", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=12.0, help="of faults")
    parser.add_argument("--calm", type=parse_calm, default=frozenset(), help="parts of the world that do no mischief")
    parser.add_argument("--faults", type=parse_faults, help="only these of the seed's faults: 3,7 or none")
    parser.add_argument("--requests", type=parse_requests, help="only these requests: client:number@time,... or none")
    parser.add_argument("--shrink", action="store_true", help="look for the shortest run that fails the same way")
    parser.add_argument("--html", type=Path, metavar="FILE", help="draw the run into a file for a browser")
    parser.add_argument("--details", action="store_true", help="heartbeats and acknowledgements, too")
    parser.add_argument("--again", help=argparse.SUPPRESS)  # what shows it again, if the code is not as it is shipped
    parser.add_argument("--last", type=int, help="show only so many lines of the timeline")
    parser.add_argument("--stop", action="store_true", help="with --seeds: end at the first failure")
    parser.add_argument("--json", action="store_true", help="with --seeds: one line for programs")
    return parser


def _replay(options: Options, arguments: argparse.Namespace) -> int:
    report = simulate(replace(options, verbose=True))
    if arguments.shrink and report.failure is not None:
        shrunk = shrink(report, tell=lambda what: print(what, file=sys.stderr, flush=True))
        report = simulate(replace(shrunk.options, verbose=True))
    if arguments.html is not None:  # first, as whoever reads the text may stop
        arguments.html.write_text(draw(report, again=arguments.again))
    print(explain(report, details=arguments.details, last=arguments.last, again=arguments.again))
    if arguments.html is not None:
        print(f"drawn into {arguments.html}")
    return report.failure is not None


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
        if report.failure is not None:
            failures.append(report)
            if not as_json and len(failures) <= SHOWN:
                print(f"{str(report.failure)[:300]}\n    {report.options.command}", flush=True)
            if stop:
                break
    if as_json:
        by = Counter(r.failure.name for r in failures if r.failure)
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


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # ends without a word when its reader does, as `| head`
    sys.exit(main())
