"""Builds the Go program in `go/`: a load from a cluster client that is not ours."""

import shutil
import subprocess
from pathlib import Path

from tests.support import apt

SOURCE = Path(__file__).parent / "go"
USUAL_PLACE = Path("/usr/local/go/bin/go")


def find_go() -> str:
    """The Go compiler: on PATH, where go.dev's archive is unpacked, or Debian's, installed now if this is root."""
    found = shutil.which("go") or (str(USUAL_PLACE) if USUAL_PLACE.exists() else None)
    if found:
        return found
    apt.install(["golang-go"], "these tests build a Go program and need Go 1.18 or later, on PATH or in /usr/local/go")
    installed = shutil.which("go")
    assert installed is not None, "Debian's golang-go is installed, but no `go` is on PATH"
    return installed


def build_load(directory: Path) -> Path:
    """The program, built with what go.sum pins; modules come through Go's module proxy, once per machine."""
    program = directory / "load"
    command = [find_go(), "build", "-mod=readonly", "-buildvcs=false", "-o", str(program), "."]
    done = subprocess.run(command, cwd=SOURCE, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)} in {SOURCE}:\n{done.stderr[-3000:]}"
    return program
