"""`make mutants`: apply each in turn, assert that it is caught as stated, print the table of docs/correctness.md."""

import argparse
import sys

from tests.simulation.mutants import mutants, try_mutant


def main() -> int:
    """Exit code 1 when a mutant was not caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("--stop", action="store_true", help="end each at the first seed that catches it")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    survivors = []
    print("| mutant | what it breaks | caught | by |\n|---|---|---|---|")
    for mutant in mutants():
        if arguments.names and mutant.name not in arguments.names:
            continue
        verdict = try_mutant(mutant, stop=arguments.stop)
        if not verdict.caught:
            survivors.append(mutant.name)
        print(verdict.row, flush=True)
    if survivors:
        print(f"\nNOT CAUGHT: {', '.join(survivors)}: a hole to close")
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main())
