"""The core broken on purpose, one rule at a time, to see that the simulation notices.

Each `*.patch` says in its first line what it breaks, and in the next when that shows only in few seeds. `python -m tests.simulation.mutants` applies each to a copy of
`dbnode/kvnode` in a temporary directory and counts in how many seeds it is caught.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many of so many seeds failed, the first of them (-1: none), and by which check how often."""

    mutant: str
    breaks: str
    seeds: int
    caught: int
    first: int
    by: dict[str, int]


def patches() -> list[Path]:
    """Every mutant, by name."""
    return sorted(HERE.glob("*.patch"))


def is_rare(patch: Path) -> bool:
    """Whether only few seeds show it."""
    return patch.read_text().splitlines()[1].startswith("Needs rare timing")


def try_mutant(patch: Path, seeds: str, replicas: int, *, stop: bool) -> Verdict:
    """Simulate seeds `A..B` with the patch applied to a copy. Raises RuntimeError when it no longer fits the core."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        shutil.copytree(
            ROOT / "dbnode" / "kvnode", Path(folder) / "kvnode", ignore=shutil.ignore_patterns("__pycache__")
        )
        applied = subprocess.run(
            ["git", "apply", "-p1", str(patch)],
            cwd=folder,
            env={**os.environ, "GIT_CEILING_DIRECTORIES": str(Path(folder).parent)},
            capture_output=True,
            text=True,
            check=False,
        )
        if applied.returncode:
            raise RuntimeError(f"{patch.name} no longer fits dbnode/kvnode: {applied.stderr.strip()}; make it anew")
        command = [sys.executable, "-m", "tests.simulation", "--seeds", seeds, "--replicas", str(replicas), "--json"]
        run = subprocess.run(
            command + ["--stop"] * stop,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": folder},
            capture_output=True,
            text=True,
            check=False,
        )
    try:
        result = json.loads(run.stdout)
    except ValueError:
        raise RuntimeError(f"{patch.name}: the simulation ended without a result: {run.stderr[-2000:]}") from None
    if not result["core"].startswith(folder):
        raise RuntimeError(f"{patch.name}: simulated {result['core']}, not the mutant")
    breaks = patch.read_text().splitlines()[0]
    return Verdict(patch.stem, breaks, result["seeds"], result["failed"], result["first"], result["by"])
