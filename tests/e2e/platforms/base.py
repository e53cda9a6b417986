"""What the tests ask of a platform."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol


class PlatformError(Exception):
    """The platform can't do what the tests need of it; says what to do."""


class Platform(Protocol):
    """A Kubernetes cluster with three workers whose parts can be broken. Nodes are named as in Kubernetes.

    Every method raises PlatformError when a program it needs is missing or fails.
    """

    name: str

    def up(self) -> Path:
        """Make sure that the cluster runs with all its nodes and no faults left over; the kubeconfig's path."""
        ...

    def tools(self) -> Path | None:
        """A directory with kubectl and helm, beside PATH."""
        ...

    def build(self, tag: str, context: Path) -> None:
        """Build the Dockerfile in `context` and have the image on every node, as `tag`."""
        ...

    def kill_node(self, node: str) -> None:
        """Power the machine off: every process on it dies at once."""
        ...

    def start_node(self, node: str) -> None:
        """Boot it again."""
        ...

    def cut_node(self, node: str) -> None:
        """Take it off the network."""
        ...

    def heal_node(self, node: str) -> None:
        """Put it back on the network."""
        ...

    def pause_node(self, node: str) -> None:
        """Freeze every process on it."""
        ...

    def resume_node(self, node: str) -> None:
        """Let them go on."""
        ...

    def signal_pod(self, namespace: str, pod: str, container: str, signal: str) -> None:
        """Send KILL, STOP or CONT to every process of a pod's container."""
        ...

    def cut_network(self, source: str, target: str) -> None:
        """Drop all packets from `source` to `target`, each a pod's IP or a node's name."""
        ...

    def lose_packets(self, source: str, target: str, percent: float) -> None:
        """Drop a share of them at random."""
        ...

    def heal_network(self) -> None:
        """Undo all cuts and losses."""
        ...


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    timeout: float = 900.0,
    stdin: str | None = None,
) -> str:
    """A program's standard output; PlatformError with what it said when it is missing, fails or takes too long (seconds)."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(words, check=False, capture_output=True, text=True, env=env, timeout=timeout, input=stdin)
    except FileNotFoundError as error:
        raise PlatformError(f"{words[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise PlatformError(f"{' '.join(words)}: not done after {timeout:.0f} s") from error
    if done.returncode:
        raise PlatformError(f"{' '.join(words)}: exit {done.returncode}\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout
