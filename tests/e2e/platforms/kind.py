"""kind (https://kind.sigs.k8s.io): each node a Docker container. Needs docker on Linux, kind, kubectl and helm.

The tests talk to pods and Services by IP, so routes to them are added on this machine, by a container in its network. A
packet for a Service goes to the control plane's node, whose kube-proxy hands it on under its own address, as it does with all
that comes from outside of the pods' networks; so the answer comes back the same way.
"""

import json
import os
import tempfile
from pathlib import Path

from kvoperator.spec import DEFAULT_ZOOKEEPER_IMAGE
from tests.e2e.platforms.base import PlatformError, run

WORKERS = 3
FAULTS = "KVCLUSTER-FAULTS"  # our iptables chain on every node
HOOKS = ("FORWARD", "INPUT", "OUTPUT")
OUTSIDE = "eth0"  # a node's one interface to the others, and to this machine

SIGNAL = """
wanted=$(readlink /proc/{pid}/ns/pid) || exit 1
for process in /proc/[0-9]*; do
  if [ "$(readlink $process/ns/pid 2>/dev/null)" = "$wanted" ]; then kill -s {signal} ${{process#/proc/}}; fi
done
true
"""
"""Every process of a container, by its own namespace of process ids. (`ctr tasks kill --all` reaches only the first process of
a container with runc 1.2 and later; that one is tini, and freezing it freezes nobody.)"""


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
            where = ["--name", self._cluster, "--kubeconfig", str(self._kubeconfig)]  # a person's own stays as it is
            run(["kind", "create", "cluster", *where, "--wait", "180s", "--config", "-"], stdin=config)
        self._kubeconfig.write_text(run(["kind", "get", "kubeconfig", "--name", self._cluster]))
        for node in self._nodes():
            state = run(["docker", "inspect", "-f", "{{.State.Running}} {{.State.Paused}}", node]).split()
            if state != ["true", "false"]:
                run(["docker", "unpause" if state == ["true", "true"] else "start", node])
        self._kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=180s")
        self._route()
        self.heal_network()
        self._have(DEFAULT_ZOOKEEPER_IMAGE)
        return self._kubeconfig

    def tools(self) -> Path | None:
        return None

    def build(self, tag: str, context: Path) -> None:
        # Attestations make an image an index of images, of which `kind load` finds only a part with containerd's store.
        run(["docker", "build", "-q", "-t", tag, context], env={**os.environ, "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"})
        run(["kind", "load", "docker-image", tag, "--name", self._cluster])

    def kill_node(self, node: str) -> None:
        run(["docker", "kill", node])

    def start_node(self, node: str) -> None:
        run(["docker", "start", node])
        self._route()  # Docker may give it another address

    def cut_node(self, node: str) -> None:
        """By its own firewall: taken off Docker's network it might come back with another address."""
        self._chain(node)
        for direction in ("-i", "-o"):
            self._on(node, f"iptables -A {FAULTS} {direction} {OUTSIDE} -j DROP")

    def heal_node(self, node: str) -> None:
        for direction in ("-i", "-o"):
            self._on(node, f"iptables -D {FAULTS} {direction} {OUTSIDE} -j DROP")

    def pause_node(self, node: str) -> None:
        run(["docker", "pause", node])

    def resume_node(self, node: str) -> None:
        run(["docker", "unpause", node])

    def signal_pod(self, namespace: str, pod: str, container: str, signal: str) -> None:
        found = json.loads(self._kubectl("get", "pod", pod, "-n", namespace, "-o", "json"))
        for status in found["status"]["containerStatuses"]:
            if status["name"] == container and "running" in status["state"]:
                one, node = status["containerID"].split("://")[1], found["spec"]["nodeName"]
                first = self._on(node, f"crictl inspect --output go-template --template '{{{{.info.pid}}}}' {one}")
                self._on(node, SIGNAL.format(pid=int(first), signal=signal))
                return
        raise PlatformError(f"pod {pod} in {namespace} has no running container {container}")

    def cut_network(self, source: str, target: str) -> None:
        self._drop(source, target)

    def lose_packets(self, source: str, target: str, percent: float) -> None:
        self._drop(source, target, "-m", "statistic", "--mode", "random", "--probability", str(percent / 100))

    def heal_network(self) -> None:
        for node in self._nodes():
            self._chain(node)
            self._on(node, f"iptables -F {FAULTS}")

    def _chain(self, node: str) -> None:
        """Have our chain on a node, before all others. A node that was started again has lost it."""
        self._on(node, f"iptables -N {FAULTS} 2>/dev/null || true")
        for hook in HOOKS:
            self._on(node, f"iptables -C {hook} -j {FAULTS} 2>/dev/null || iptables -I {hook} -j {FAULTS}")

    def _drop(self, source: str, target: str, *match: str) -> None:
        for node in self._nodes():
            self._chain(node)
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
        """Docker's word: what Kubernetes knows may be older than the node's last start."""
        return run(["docker", "inspect", "-f", '{{(index .NetworkSettings.Networks "kind").IPAddress}}', node]).strip()

    def _have(self, image: str) -> None:
        """An image of others' on every worker, so that a test does not wait for a registry."""
        for node in self._nodes():
            if not node.endswith("control-plane"):
                self._on(node, f"crictl inspecti -q {image} >/dev/null 2>&1 || crictl pull -q {image}")

    def _pod_network(self, node: str) -> str:
        return self._kubectl("get", "node", node, "-o", "jsonpath={.spec.podCIDR}").strip()

    def _route(self) -> None:
        """Routes from this machine to the pods of each node, and to Services by way of the control plane."""
        control = next(node for node in self._nodes() if node.endswith("control-plane"))
        image = run(["docker", "inspect", "-f", "{{.Config.Image}}", control]).strip()
        routes = {self._pod_network(node): address for node in self._nodes() if (address := self._address(node))}
        services = self._on(
            control, "grep -o 'service-cluster-ip-range=[^ ]*' /etc/kubernetes/manifests/kube-apiserver.yaml"
        )
        routes[services.strip().split("=")[1]] = self._address(control)
        script = " && ".join(f"ip route replace {network} via {address}" for network, address in routes.items())
        privileges = ["--rm", "--network", "host", "--cap-add", "NET_ADMIN", "--entrypoint", "sh"]
        run(["docker", "run", *privileges, image, "-c", script])
