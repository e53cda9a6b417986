"""Namespaces of our own: this program runs itself again in new mount and network namespaces, which end with it.

So nothing that is done to the network, and nothing that is mounted, is seen by anybody else, and nothing is left behind
even when this program is killed.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

INSIDE = "KV_TORTURE_INSIDE"
TOOLS = ("unshare", "nsenter", "setpriv", "ip", "mount")


def obstacle() -> str:
    """Why namespaces can't be had here, for a person; empty when they can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not found: install iproute2, mount and util-linux"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "/dev/net/tun can't be opened: run as root, or as somebody who may (crw-rw-rw-)"
    tried = subprocess.run(
        [*unshare(), "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True, check=False
    )
    return "" if tried.returncode == 0 else f"no namespaces ({tried.stderr.strip()}): run as root"


def inside() -> bool:
    """Whether this is the program's second run."""
    return INSIDE in os.environ


def enter(arguments: Sequence[str]) -> int:
    """Run this program again inside; its exit code."""
    command = [*unshare(), "setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "tests.torture", *arguments]
    return subprocess.call(command, env={**os.environ, INSIDE: "1"})


def unshare() -> list[str]:
    """The command that runs the command behind it in namespaces of its own."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *user, "--mount", "--net"]
