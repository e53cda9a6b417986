"""Builds the Go program in `go/`: a load from a cluster client that is not ours."""

import os
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).parent / "go"
USUAL_PLACE = Path("/usr/local/go/bin/go")


class GoMissingError(Exception):
    """There is no Go compiler, and it can't be installed from here."""


def find_go() -> str:
    """The Go compiler: on PATH, where go.dev's archive is unpacked, or Debian's, installed now if this is root."""
    found = shutil.which("go") or (str(USUAL_PLACE) if USUAL_PLACE.exists() else None)
    if found:
        return found
    command = "apt-get install -y --no-install-recommends golang-go"
    if os.geteuid() != 0:
        raise GoMissingError(
            f"these tests build a Go program and need Go 1.18 or later on PATH; run: sudo apt-get update && sudo {command}"
        )
    subprocess.run(["apt-get", "update", "-q"], check=False, stdout=subprocess.DEVNULL)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command.split(), check=False, capture_output=True, text=True, env=environment)
    installed = shutil.which("go")
    if done.returncode != 0 or installed is None:
        raise GoMissingError(
            f"`{command}` failed: {done.stderr[-500:]}; unpack Go from go.dev to /usr/local/go instead"
        )
    return installed


def build_load(directory: Path) -> Path:
    """The program, built with what go.sum pins; modules come through Go's module proxy, once per machine."""
    program = directory / "load"
    command = [find_go(), "build", "-mod=readonly", "-buildvcs=false", "-o", str(program), "."]
    done = subprocess.run(command, cwd=SOURCE, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)} in {SOURCE}:\n{done.stderr[-3000:]}"
    return program
