"""`python -m tests.simulation`, as a person calls it."""

import subprocess
import sys
from pathlib import Path


def test_a_reader_that_stops_reading_is_no_error(tmp_path: Path) -> None:
    """As `| head` does; what is drawn is drawn all the same."""
    picture = tmp_path / "run.html"
    command = [sys.executable, "-m", "tests.simulation", "--seed", "3", "--details", "--html", str(picture)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        assert run.stdout.readline().startswith("GOOD: ")
        run.stdout.close()
        assert run.stderr.read() == ""
    assert "<svg" in picture.read_text()
