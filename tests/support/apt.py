"""Debian's packages that tests need: installed when this is root, asked for otherwise."""

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

_LOCK = Path(tempfile.gettempdir()) / "kvcluster-tests-apt.lock"
_UPDATE = ("apt-get", "update", "-q")
_INSTALL = ("apt-get", "install", "-y", "--no-install-recommends")
# Nobody answers questions here, and a package's service is not to be started: tests run their own.
_ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}


class PackagesMissingError(Exception):
    """Packages are not installed and can't be installed from here; says what to do."""


def install(packages: Sequence[str], what_for: str) -> None:
    """Install packages, one process at a time: apt does not wait for another. Raises PackagesMissingError."""
    command = [*_INSTALL, *packages]
    if os.geteuid() != 0:
        raise PackagesMissingError(f"{what_for}; run: sudo apt-get update && sudo {' '.join(command)}")
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        environment = {**os.environ, **_ENVIRONMENT}
        subprocess.run(_UPDATE, check=False, stdout=subprocess.DEVNULL, env=environment)
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise PackagesMissingError(f"{what_for}, and `{' '.join(command)}` failed: {done.stderr[-500:]}")
