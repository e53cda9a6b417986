"""kind (https://kind.sigs.k8s.io): each node a Docker container. Needs docker, kind, kubectl and helm.

The tests talk to pods and Services by IP, so routes to them are added on this machine, by a container in its network.
"""

import json
import tempfile
from pathlib import Path

from tests.e2e.platforms.base import PlatformError, run

WORKERS = 3
FAULTS = "KVCLUSTER-FAULTS"  # our iptables chain on every node


class Kind:
    """A kind cluster, made when there is none of that name."""

    name = "kind"

    def __init__(self, cluster: str) -> None:
        """`cluster` is kind's name for it."""
        self._cluster = cluster
        self._kubeconfig = Path(tempfile.gettempdir()) / f"kind-{cluster}.kubeconfig"

    def up(self) -> Path:
        try:
            clusters = run(["kind", "get", "clusters"]).split()
        except PlatformError as error:
            raise PlatformError(
                f"no Kubernetes cluster for the end-to-end tests: {error}. Install kind and docker, or set KUBECONFIG"
            ) from error
        if self._cluster not in clusters:
            nodes = "\n".join(["- role: control-plane", *["- role: worker"] * WORKERS])
            config = f"kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes:\n{nodes}\n"
            run(["kind", "create", "cluster", "--name", self._cluster, "--wait", "180s", "--config", "-"], stdin=config)
        self._kubeconfig.write_text(run(["kind", "get", "kubeconfig", "--name", self._cluster]))
        for node in self._nodes():
            if run(["docker", "inspect", "-f", "{{.State.Running}}", node]).strip() != "true":
                self.start_node(node)
        self._route()
        self.heal_network()
        return self._kubeconfig

    def tools(self) -> Path | None:
        return None

    def build(self, tag: str, context: Path) -> None:
        run(["docker", "build", "-q", "-t", tag, context])
        run(["kind", "load", "docker-image", tag, "--name", self._cluster])

    def kill_node(self, node: str) -> None:
        run(["docker", "kill", node])

    def start_node(self, node: str) -> None:
        run(["docker", "start", node])

    def cut_node(self, node: str) -> None:
        run(["docker", "network", "disconnect", "kind", node])

    def heal_node(self, node: str) -> None:
        run(["docker", "network", "connect", "kind", node])

    def pause_node(self, node: str) -> None:
        run(["docker", "pause", node])

    def resume_node(self, node: str) -> None:
        run(["docker", "unpause", node])

    def signal_pod(self, namespace: str, pod: str, container: str, signal: str) -> None:
        found = json.loads(self._kubectl("get", "pod", pod, "-n", namespace, "-o", "json"))
        for status in found["status"]["containerStatuses"]:
            if status["name"] == container and "://" in status.get("containerID", ""):
                one = status["containerID"].split("://")[1]
                node = found["spec"]["nodeName"]
                run(
                    ["docker", "exec", node, "ctr", "-n", "k8s.io", "tasks", "kill", "--all", "-s", f"SIG{signal}", one]
                )
                return
        raise PlatformError(f"pod {pod} in {namespace} has no running container {container}")

    def cut_network(self, source: str, target: str) -> None:
        self._drop(source, target)

    def lose_packets(self, source: str, target: str, percent: float) -> None:
        self._drop(source, target, "-m", "statistic", "--mode", "random", "--probability", str(percent / 100))

    def heal_network(self) -> None:
        for node in self._nodes():
            self._on(node, f"iptables -N {FAULTS} 2>/dev/null; iptables -F {FAULTS}")
            for hook in ("FORWARD", "INPUT", "OUTPUT"):
                self._on(node, f"iptables -C {hook} -j {FAULTS} 2>/dev/null || iptables -I {hook} -j {FAULTS}")

    def _drop(self, source: str, target: str, *match: str) -> None:
        for node in self._nodes():
            for one in self._addresses(source):
                for other in self._addresses(target):
                    self._on(node, f"iptables -A {FAULTS} -s {one} -d {other} {' '.join(match)} -j DROP")

    def _addresses(self, place: str) -> list[str]:
        if place not in self._nodes():
            return [place]
        return [self._address(place), self._pod_network(place)]

    def _nodes(self) -> list[str]:
        return run(["kind", "get", "nodes", "--name", self._cluster]).split()

    def _on(self, node: str, script: str) -> str:
        return run(["docker", "exec", node, "sh", "-c", script])

    def _kubectl(self, *words: str) -> str:
        return run(["kubectl", "--kubeconfig", self._kubeconfig, *words])

    def _address(self, node: str) -> str:
        path = '{.status.addresses[?(@.type=="InternalIP")].address}'
        return self._kubectl("get", "node", node, "-o", f"jsonpath={path}").strip()

    def _pod_network(self, node: str) -> str:
        return self._kubectl("get", "node", node, "-o", "jsonpath={.spec.podCIDR}").strip()

    def _route(self) -> None:
        """Routes from this machine to the pods of each node, and to Services by way of the control plane."""
        control = next(node for node in self._nodes() if node.endswith("control-plane"))
        image = run(["docker", "inspect", "-f", "{{.Config.Image}}", control]).strip()
        routes = {self._pod_network(node): self._address(node) for node in self._nodes()}
        services = self._on(
            control, "grep -o 'service-cluster-ip-range=[^ ]*' /etc/kubernetes/manifests/kube-apiserver.yaml"
        )
        routes[services.strip().split("=")[1]] = self._address(control)
        script = " && ".join(f"ip route replace {network} via {address}" for network, address in routes.items())
        privileges = ["--rm", "--network", "host", "--cap-add", "NET_ADMIN", "--entrypoint", "sh"]
        run(["docker", "run", *privileges, image, "-c", script])
