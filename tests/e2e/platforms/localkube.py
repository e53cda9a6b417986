"""The cluster of the `kube` tool: upstream Kubernetes on this machine, each node a network namespace. Needs root."""

import os
import time
from pathlib import Path
from urllib.request import urlopen

from tests.e2e.platforms.base import PlatformError, run

ROOT = Path(__file__).resolve().parents[3]
KUBECONFIG = Path("/var/lib/localkube/kubeconfig")
TOOLS = Path("/var/cache/localkube/bin")
CONTROL_PLANE = {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "coredns"}
HOST_PROXY = "host/kube-proxy"
ROUNDS = 4
SETTLED = 2.0  # seconds
PROXY_HEALTH = "http://172.31.0.1:10256/livez"
PROXY_PATIENCE = 90.0  # seconds


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
        if self._stopped() & CONTROL_PLANE:
            self._kube("up")
        # `kube up` writes the configuration of every kube-proxy, and one that runs ends when its file is written. So it is
        # asked for only when it must be, and what has ended is started one by one.
        for _ in range(ROUNDS):
            stopped = self._stopped()
            if HOST_PROXY in stopped:
                self._kube("up")
            for node in sorted({name.split("/")[0] for name in stopped - {HOST_PROXY} if "/" in name}):
                self.start_node(node)
            time.sleep(SETTLED)  # a kube-proxy notices its file a moment later
            if not self._stopped():
                self._wait_for_services()
                self.heal_network()
                return self._kubeconfig
        raise PlatformError(
            f"{self._tool} status: {', '.join(sorted(self._stopped()))} stopped, and can't be kept running"
        )

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

    def _stopped(self) -> set[str]:
        """Programs that do not run, as `kube status` names them."""
        rows = [line.rsplit(": ", 1) for line in self._kube("status").splitlines() if ": " in line]
        return {name for name, state in rows if state == "stopped"}

    def _wait_for_services(self) -> None:
        """Until this machine's kube-proxy has its rules: it waits half a minute for a node of its name before."""
        deadline = time.monotonic() + PROXY_PATIENCE
        while True:
            try:
                with urlopen(PROXY_HEALTH, timeout=2):
                    return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise PlatformError(f"{PROXY_HEALTH}: not well within {PROXY_PATIENCE:.0f} s: {error}") from error
            time.sleep(0.5)

    def _kube(self, *words: str) -> str:
        return run([self._tool, *words])
