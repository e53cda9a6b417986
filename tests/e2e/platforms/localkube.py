"""The cluster of the `kube` tool: upstream Kubernetes on this machine, each node a network namespace. Needs root."""

import os
from pathlib import Path

from tests.e2e.platforms.base import run

ROOT = Path(__file__).resolve().parents[3]
KUBECONFIG = Path("/var/lib/localkube/kubeconfig")
TOOLS = Path("/var/cache/localkube/bin")


def kube_tool() -> Path:
    """Where the tool is: KUBE_TOOL, or beside this repository."""
    return Path(os.environ.get("KUBE_TOOL") or ROOT.parent / "shared" / "kube" / "kube")


class Localkube:
    """A thin layer over the tool's commands."""

    name = "localkube"

    def __init__(self, tool: Path, kubeconfig: Path) -> None:
        """`tool` is the `kube` program."""
        self._tool = tool
        self._kubeconfig = kubeconfig

    def up(self) -> Path:
        self._kube("up")  # leaves what runs as it is, and starts nodes that a test left dead
        self.heal_network()
        return self._kubeconfig

    def tools(self) -> Path | None:
        return TOOLS

    def build(self, tag: str, context: Path) -> None:
        self._kube("build", tag, str(context))

    def kill_node(self, node: str) -> None:
        self._kube("node", "kill", node)

    def start_node(self, node: str) -> None:
        self._kube("node", "start", node)

    def cut_node(self, node: str) -> None:
        self._kube("node", "cut", node)

    def heal_node(self, node: str) -> None:
        self._kube("node", "heal", node)

    def pause_node(self, node: str) -> None:
        self._kube("node", "pause", node)

    def resume_node(self, node: str) -> None:
        self._kube("node", "resume", node)

    def signal_pod(self, namespace: str, pod: str, container: str, signal: str) -> None:
        self._kube("pod", "signal", pod, signal, "-n", namespace, "-c", container)

    def cut_network(self, source: str, target: str) -> None:
        self._kube("net", "cut", source, target)

    def lose_packets(self, source: str, target: str, percent: float) -> None:
        self._kube("net", "loss", source, target, str(percent))

    def heal_network(self) -> None:
        self._kube("net", "heal")

    def _kube(self, *words: str) -> None:
        run([self._tool, *words])
