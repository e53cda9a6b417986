"""The documented example does what it says."""

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "store_library.py"


def run(*arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, EXAMPLE, *arguments], capture_output=True, text=True, check=True, timeout=60)
    return [line.partition(" (version")[0] for line in done.stdout.splitlines() if "store opened" not in line]


def test_the_example_writes_reads_and_reads_again_after_reopening(tmp_path: Path) -> None:
    expected = ["apple: green", "banana: no value"]
    assert run() == [*expected, "reopened: the log ends at index 4, 2 is applied", *expected]
    run(str(tmp_path / "data"))
    assert "reopened: the log ends at index 8, 6 is applied" in run(str(tmp_path / "data"))
