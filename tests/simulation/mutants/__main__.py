"""`python -m tests.simulation.mutants [--seeds A..B] [name ...]`: a Markdown row for each mutant."""

import argparse
import sys

from tests.simulation.mutants import patches, try_mutant


def main() -> int:
    """Exit code 1 when a mutant was caught in no seed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("--seeds", default="0..200", help="A..B, B not included")
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    missed = 0
    print("| mutant | what it breaks | caught in | first seed | by |\n|---|---|---|---|---|")
    for patch in patches():
        if arguments.names and patch.stem not in arguments.names:
            continue
        verdict = try_mutant(patch, arguments.seeds, arguments.replicas, stop=False)
        missed += not verdict.caught
        by = ", ".join(f"{what} ({number})" for what, number in sorted(verdict.by.items(), key=lambda x: -x[1])[:4])
        print(
            f"| `{verdict.mutant}` | {verdict.breaks} | {verdict.caught} of {verdict.seeds} | {verdict.first} | {by} |",
            flush=True,
        )
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
