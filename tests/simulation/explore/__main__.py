"""The command line."""

import argparse
import sys
import time
from dataclasses import fields

from tests.simulation.explore.parts import Bounds
from tests.simulation.explore.search import explore, settled


def main() -> int:
    """Exit code 1 when a state breaks an invariant."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.explore", description=__doc__)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--depth", type=int, default=10)
    parser.add_argument("--deviations", type=int, help="from what is usual; without it every order")
    parser.add_argument("--most", type=int, default=1 << 40, help="end after about so many states")
    for bound in fields(Bounds):
        parser.add_argument(f"--{bound.name}", type=int, default=bound.default)
    arguments = parser.parse_args()
    bounds = Bounds(**{bound.name: getattr(arguments, bound.name) for bound in fields(Bounds)})
    began = time.process_time()
    start = settled(arguments.replicas, bounds)
    found = explore(start, arguments.depth, deviations=arguments.deviations, most=arguments.most)
    took = time.process_time() - began
    print(f"{arguments.replicas} replicas, {bounds}")
    print(
        f"{found.states} states, {found.transitions} transitions, {took:.0f} s of CPU; new per depth: {found.per_depth}"
    )
    if found.broken:
        print("\n".join(["", f"BROKEN: {found.broken}", *found.way]))
    return bool(found.broken)


if __name__ == "__main__":
    sys.exit(main())
