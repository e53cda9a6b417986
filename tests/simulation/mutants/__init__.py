"""The shipped code broken on purpose, one rule at a time, to see that the checks notice.

Each `*.patch` says in its first line what it breaks, and in its second what must catch it:

    Caught by: seeds A..B[, N replicas]      the simulation of the core, in one of these seeds
    Caught by: whole seeds A..B[, N replicas] the simulation of whole clusters
    Caught by: store seeds A..B[, N replicas] the simulation of stores
    Caught by: path/of/test_file.py [-k ...] that test, which must fail

`make mutants` applies each to a copy of our packages in a temporary directory and runs what is to catch it. What caught it
must let the unbroken code pass: else a patch, or an environment, in which nothing runs would count as caught.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.simulation.record import RAISED, Failure

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PACKAGES = {
    "kvnode": "dbnode",
    "kvstore": "dbnode",
    "kvclient": "client",
    "kvrouter": "router",
    "kvcoord": "coordination",
    "kvoperator": "operator",
}
QUICK_SEEDS = {"core": 160, "whole": 20, "store": 60}
"""By world: a mutant that is stated to need more is tried by `make mutants` only."""

RAISED_NAME = Failure(RAISED, 0.0, "", "").name

_SEEDS = re.compile(r"(whole |store )?seeds (\d+)\.\.(\d+)(?:, (\d+) replicas)?$")


@dataclass(frozen=True, slots=True)
class Mutant:
    """A patch, and what is to catch it: seeds of the simulation, or else a test."""

    patch: Path
    breaks: str
    catcher: str

    @property
    def name(self) -> str:
        return self.patch.stem

    @property
    def seeds(self) -> tuple[str, range, int] | None:
        """The world, seeds, and with how many replicas; None when a test is to catch it."""
        found = _SEEDS.match(self.catcher)
        if found is None:
            return None
        return (found[1] or "core").strip(), range(int(found[2]), int(found[3])), int(found[4] or 3)

    @property
    def quick(self) -> bool:
        """Whether `make test` tries it: what a test is to catch, it would run once more for each mutant."""
        if self.seeds is None:
            return False
        world, seeds, _ = self.seeds
        return len(seeds) <= QUICK_SEEDS[world]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether it was caught: of so many seeds so many failed, the first of them (-1: none), by which checks."""

    mutant: Mutant
    caught: int
    tried: int
    first: int
    by: str

    @property
    def row(self) -> str:
        """A row of the table in docs/correctness.md."""
        mutant = self.mutant
        if mutant.seeds is None:
            result = "caught" if self.caught else "**not caught**"
            return f"| `{mutant.name}` | {mutant.breaks} | {result} | `{mutant.catcher}` |"
        result = f"{self.caught} of {self.tried}, first {self.first}" if self.caught else "**none**"
        return f"| `{mutant.name}` | {mutant.breaks} | {result} (in {mutant.catcher}) | {self.by} |"


def mutants() -> list[Mutant]:
    """Every mutant, by name. Raises ValueError when a patch doesn't say what is to catch it."""
    found = []
    for patch in sorted(HERE.glob("*.patch")):
        breaks, caught, *_ = patch.read_text().splitlines()
        if not caught.startswith("Caught by: "):
            raise ValueError(f'{patch.name}: the second line must be "Caught by: seeds A..B" or "Caught by: <test>"')
        found.append(Mutant(patch, breaks, caught.removeprefix("Caught by: ")))
    return found


def try_mutant(mutant: Mutant, *, stop: bool = True) -> Verdict:
    """Run what is to catch it; `stop` at the first seed that does.

    Raises RuntimeError when it doesn't fit the code, or the unbroken code fails where it was caught, or it only raises.
    """
    with _applied(mutant) as folder:
        verdict = _try(mutant, folder, stop=stop)
    if verdict.caught:
        catcher = mutant.catcher
        if mutant.seeds is not None:
            catcher = _SEEDS.sub(rf"\1seeds {verdict.first}..{verdict.first + 1}, {mutant.seeds[2]} replicas", catcher)
        _require_unbroken(catcher)
    return verdict


@cache
def _require_unbroken(catcher: str) -> None:
    """Raise RuntimeError when the code as it is, copied like a mutant, fails there, too."""
    code = Mutant(Path("the unbroken code"), "nothing", catcher)
    with _copied() as folder:
        if _try(code, folder, stop=True).caught:
            raise RuntimeError(f"{catcher}: the unbroken code fails, too, so that no mutant is caught by it")


def _try(mutant: Mutant, folder: str, *, stop: bool) -> Verdict:
    if mutant.seeds is None:
        return _run_test(mutant, folder)
    return _simulate(mutant, folder, *mutant.seeds, stop=stop)


def check_fits(mutant: Mutant) -> None:
    """Raise RuntimeError when the patch can't be applied, or what it makes is no Python."""
    with _applied(mutant) as folder:
        for name in re.findall(r"^\+\+\+ b/(\S+)", mutant.patch.read_text(), re.MULTILINE):
            try:
                compile((Path(folder) / name).read_text(), name, "exec")
            except SyntaxError as e:
                raise RuntimeError(f"{mutant.patch.name}: what it makes of {name} is no Python: {e}") from e


@contextmanager
def _copied() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        for package, parent in PACKAGES.items():
            source, copy = ROOT / parent / package, Path(folder) / package
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        yield folder


@contextmanager
def _applied(mutant: Mutant) -> Iterator[str]:
    with _copied() as folder:
        environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(Path(folder).parent)}
        command = ["git", "apply", "-p1", "-C1", str(mutant.patch)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{mutant.patch.name} no longer fits the code: {done.stderr.strip()}; make it anew")
        yield folder


def _simulate(mutant: Mutant, folder: str, world: str, seeds: range, replicas: int, *, stop: bool) -> Verdict:
    command = [sys.executable, "-m", "tests.simulation", "--world", world, "--json"]
    command += ["--seeds", f"{seeds.start}..{seeds.stop}"]
    command += ["--replicas", str(replicas)] + ["--stop"] * stop
    run = _python(command, folder)
    try:
        result = json.loads(run.stdout)
    except ValueError:
        raise RuntimeError(
            f"{mutant.patch.name}: the simulation ended without a result: {run.stderr[-2000:]}"
        ) from None
    if not result["core"].startswith(folder):
        raise RuntimeError(f"{mutant.patch.name}: simulated {result['core']}, not the mutant")
    if set(result["by"]) == {RAISED_NAME}:
        raise RuntimeError(f"{mutant.patch.name}: what it makes of the code only raises, which no check is needed for")
    by = ", ".join(f"{what} ({number})" for what, number in sorted(result["by"].items(), key=lambda x: -x[1])[:4])
    return Verdict(mutant, result["failed"], result["seeds"], result["first"], by)


def _run_test(mutant: Mutant, folder: str) -> Verdict:
    """Exit code 1: some test failed. All else means that the tests could not be run."""
    run = _python(_test_command(mutant), folder)
    if run.returncode not in (0, 1) or "no tests ran" in run.stdout:
        raise RuntimeError(f"{mutant.patch.name}: {mutant.catcher} could not be run: {run.stdout[-2000:]}")
    return Verdict(mutant, run.returncode, 1, 0, mutant.catcher)


def _test_command(mutant: Mutant) -> list[str]:
    words = mutant.catcher.split(" -k ")
    selected = ["-k", words[1]] if len(words) > 1 else []
    plain = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist"]
    return [sys.executable, "-m", "pytest", words[0], *selected, *plain]


def _python(command: list[str], folder: str, *, shown: bool = False) -> subprocess.CompletedProcess[str]:
    """Run it with the packages in the folder before all others. `shown`: what it prints is for whoever called us."""
    path = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=not shown, text=True, check=False)


# --- to look at ------------------------------------------------------------------------------------------------------


def show(mutant: Mutant, *, html: Path | None = None, details: bool = False) -> bool:
    """Print what it breaks, and the run that catches it, shrunk, and draw it; or what the test says that is to catch it.

    Gives whether it was caught. Raises RuntimeError as `try_mutant` does.
    """
    name, change = mutant.patch.name, mutant.patch.read_text().partition("\n--- ")[2]
    print(f"MUTANT: {mutant.breaks}\n\nTHE CHANGE (tests/simulation/mutants/{name})\n--- {change}", flush=True)
    with _applied(mutant) as folder:
        if mutant.seeds is None:
            return _python(_test_command(mutant), folder, shown=True).returncode == 1
        print(f"looks for the first of {mutant.catcher} that catches it", file=sys.stderr, flush=True)
        verdict = _try(mutant, folder, stop=True)
        if verdict.caught:
            _python(_show_command(mutant, verdict.first, html=html, details=details), folder, shown=True)
    return bool(verdict.caught)


def _show_command(mutant: Mutant, seed: int, *, html: Path | None, details: bool) -> list[str]:
    assert mutant.seeds is not None
    world, _, replicas = mutant.seeds
    command = [sys.executable, "-m", "tests.simulation", "--world", world, "--seed", str(seed), "--shrink"]
    command += [
        "--replicas",
        str(replicas),
        "--again",
        f".venv/bin/python -m tests.simulation.mutants {mutant.name} --show",
    ]
    command += [] if html is None else ["--html", str(html.absolute())]
    return command + ["--details"] * details
