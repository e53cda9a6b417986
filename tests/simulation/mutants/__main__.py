"""`make mutants`: apply each in turn, assert that it is caught as stated, print the table of docs/correctness.md.

With `--show` and a name: the failing run that catches that one, to look at.
"""

import argparse
import signal
import sys
from pathlib import Path

from tests.simulation.mutants import Mutant, mutants, show, try_mutant


def main() -> int:
    """Exit code 1 when a mutant was not caught."""
    arguments, chosen = _arguments()
    if arguments.show:
        caught = show(chosen[0], html=arguments.html, details=arguments.details)
        survivors = [] if caught else [chosen[0].name]
    else:
        survivors = _try_all(chosen, stop=arguments.stop)
    if survivors:
        print(f"\nNOT CAUGHT: {', '.join(survivors)}: a hole to close")
    return bool(survivors)


def _arguments() -> tuple[argparse.Namespace, list[Mutant]]:
    """What is asked for, and of which mutants."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("--stop", action="store_true", help="end each at the first seed that catches it")
    parser.add_argument("--show", action="store_true", help="of one: print the run that catches it, shrunk")
    parser.add_argument("--html", type=Path, metavar="FILE", help="with --show: draw the run, too, for a browser")
    parser.add_argument("--details", action="store_true", help="with --show: heartbeats and acknowledgements, too")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    known = {mutant.name: mutant for mutant in mutants()}
    for name in arguments.names:
        if name not in known:
            parser.error(f"there is no mutant {name!r}; there are {', '.join(known)}")
    chosen = [mutant for name, mutant in known.items() if name in arguments.names or not arguments.names]
    if arguments.show and len(arguments.names) != 1:
        parser.error("--show takes the name of one mutant")
    if arguments.html is not None and not (arguments.show and chosen[0].seeds):
        parser.error("--html takes --show, and a mutant that a seed catches")
    return arguments, chosen


def _try_all(chosen: list[Mutant], *, stop: bool) -> list[str]:
    """Print the table; gives the names of those that were not caught."""
    survivors = []
    print("| mutant | what it breaks | caught | by |\n|---|---|---|---|")
    for mutant in chosen:
        verdict = try_mutant(mutant, stop=stop)
        if not verdict.caught:
            survivors.append(mutant.name)
        print(verdict.row, flush=True)
    return survivors


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # ends without a word when its reader does, as `| head`
    sys.exit(main())
