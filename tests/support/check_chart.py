"""`helm lint --strict` and `helm template` on the chart, with values that must do and values that must be refused.

Helm is looked for in HELM, on PATH and where the local cluster keeps its tools; where there is none, that is said and
the check passes. Run as `python -m tests.support.check_chart`.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "kvcluster"
KUBE_VERSION = "1.34.0"
NOT_ROOT_UID = 10001


@dataclass(frozen=True)
class Case:
    """One set of values: what it shows, its `--set` words, and the text of the refusal that is due (None: accepted)."""

    name: str
    values: tuple[str, ...] = ()
    refusal: str | None = None


CASES = (
    Case("as it comes"),
    Case("two operators, one namespace", ("replicas=2", "namespaceScoped=true")),
    Case("an own service account", ("serviceAccount.create=false", "serviceAccount.name=mine", "rbac.create=false")),
    Case(
        "everything set",
        (
            "image.repository=registry.example/kvcluster",
            "image.tag=1.2.3",
            "imagePullSecrets[0].name=pull",
            "podLabels.team=data",
            "podAnnotations.note=x",
            "nodeSelector.disk=ssd",
            "tolerations[0].operator=Exists",
            "priorityClassName=system-cluster-critical",
            "env[0].name=KV_LOG_LEVEL",
            "env[0].value=debug",
            "fullnameOverride=databases",
        ),
    ),
    Case("an unknown value", ("replica=2",), "replica"),
    Case("a misspelt nested value", ("image.tagg=1",), "tagg"),
    Case("a wrong type", ("replicas=many",), "replicas"),
)


def find_helm() -> str | None:
    """The helm to use, or None when there is none."""
    cache = Path(os.environ.get("LOCALKUBE_CACHE", "/var/cache/localkube")) / "bin" / "helm"
    return os.environ.get("HELM") or shutil.which("helm") or (str(cache) if cache.exists() else None)


def faults(helm: str) -> Iterator[str]:
    """What is wrong with the chart, one sentence each."""
    done = _run(helm, "lint", "--strict", str(CHART))
    if done.returncode:
        yield f"helm lint --strict: {done.stdout}{done.stderr}"
    for case in CASES:
        yield from (f"{case.name}: {fault}" for fault in _case_faults(helm, case))


def _case_faults(helm: str, case: Case) -> Iterator[str]:
    sets = [word for value in case.values for word in ("--set", value)]
    done = _run(
        helm, "template", "kv", str(CHART), "--namespace=ns", f"--kube-version={KUBE_VERSION}", "--include-crds", *sets
    )
    if case.refusal is not None:
        if done.returncode == 0:
            yield "was accepted, and must be refused"
        elif case.refusal not in done.stderr:
            yield f"the refusal does not name {case.refusal!r}: {done.stderr}"
        return
    if done.returncode:
        yield f"helm template: {done.stderr}"
        return
    objects = [one for one in yaml.safe_load_all(done.stdout) if one]
    yield from _object_faults(objects, namespaced="namespaceScoped=true" in case.values)


def _object_faults(objects: list[dict[str, object]], *, namespaced: bool) -> Iterator[str]:
    kinds = [str(one["kind"]) for one in objects]
    if "CustomResourceDefinition" not in kinds:
        yield "no CustomResourceDefinition: charts/kvcluster/crds is empty (make generate)"
    if kinds.count("Deployment") != 1:
        yield f"expected one Deployment, found {kinds}"
    if namespaced and any(kind.startswith("ClusterRole") for kind in kinds):
        yield "namespaceScoped gives rights in other namespaces (a ClusterRole)"
    for one in objects:
        if str(one["kind"]) in {"Role", "ClusterRole"}:
            yield from (f"{one['kind']} grants '*'" for rule in one["rules"] if "*" in str(rule))  # type: ignore[attr-defined]
        if one["kind"] == "Deployment":
            pod = one["spec"]["template"]["spec"]  # type: ignore[index]
            if pod["securityContext"]["runAsUser"] != NOT_ROOT_UID:
                yield "the operator does not run as the image's user"
            if not all(each["securityContext"]["readOnlyRootFilesystem"] for each in pod["containers"]):
                yield "the operator's root file system is not read-only"


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120)


def main() -> int:
    """Check the chart and say what is wrong; the exit status."""
    helm = find_helm()
    if helm is None:
        print("chart: not checked, there is no helm on PATH (or name one in HELM)")
        return 0
    found = list(faults(helm))
    for fault in found:
        print(f"chart: {fault}", file=sys.stderr)
    if not found:
        print(f"chart: linted, {len(CASES)} sets of values as expected")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
