"""What there is to know after a failure, in one directory: objects, descriptions, logs, status."""

from pathlib import Path

from tests.e2e.kube import Kube, KubeError

KINDS = "pods,statefulsets,deployments,services,persistentvolumeclaims,poddisruptionbudgets,endpointslices,kvclusters"


def collect(kube: Kube, namespaces: list[str], target: Path) -> None:
    """Write files below `target`; what can't be had is left out with a line that says why."""
    target.mkdir(parents=True, exist_ok=True)
    _write(kube, target / "nodes.txt", "get", "nodes", "-o", "wide")
    for namespace in namespaces:
        place = target / namespace
        place.mkdir(exist_ok=True)
        _write(kube, place / "objects.txt", "get", KINDS, "-n", namespace, "-o", "wide")
        _write(kube, place / "kvclusters.yaml", "get", "kvclusters", "-n", namespace, "-o", "yaml")
        _write(kube, place / "pods.yaml", "get", "pods", "-n", namespace, "-o", "yaml")
        _write(kube, place / "describe.txt", "describe", KINDS, "-n", namespace)
        _write(kube, place / "events.txt", "get", "events", "-n", namespace, "--sort-by=.lastTimestamp")
        for pod in _names(kube, namespace):
            _write(kube, place / f"{pod}.log", "logs", pod, "-n", namespace, "--all-containers", "--timestamps")
            _write(kube, place / f"{pod}.previous.log", "logs", pod, "-n", namespace, "--previous", "--timestamps")


def _names(kube: Kube, namespace: str) -> list[str]:
    try:
        return kube.kubectl("get", "pods", "-n", namespace, "-o", "jsonpath={.items[*].metadata.name}").split()
    except KubeError:
        return []


def _write(kube: Kube, path: Path, *words: str) -> None:
    try:
        text = kube.kubectl(*words, timeout=30.0)
    except KubeError as error:
        if path.name.endswith(".previous.log"):
            return
        text = f"not to be had: {error}\n"
    path.write_text(text)
