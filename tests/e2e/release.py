"""The operator under test, installed by helm as a person does it."""

import os
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.kube import Kube, KubeError, Object, is_ready, wait_until

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "kvcluster"


@dataclass(frozen=True)
class Release:
    """The helm release and the Deployment that it makes."""

    kube: Kube
    namespace: str = "kvcluster-system"
    name: str = "kvcluster"

    @property
    def deployment(self) -> str:
        """The operator's Deployment, its service account and its roles."""
        return f"{self.name}-operator" if "kvcluster" in self.name else f"{self.name}-kvcluster-operator"

    def install(self, image: str, build: str, *values: str) -> None:
        """Install and wait until the operator is ready. Helm makes CRDs but never changes them, so that is done here.

        `build` tells images of the same tag apart, so that an operator that an earlier run kept is replaced. `values`
        are more of the chart's, as a=b.
        """
        repository, tag = image.rsplit(":", 1)
        self.kube.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CHART / "crds"))
        ours = f"image.repository={repository},image.tag={tag},podAnnotations.build={build}"
        place = ["-n", self.namespace, "--create-namespace"]
        more = os.environ.get("E2E_HELM_SET")  # more values, for a look at something
        sets = [word for one in (ours, more, *values) if one for word in ("--set", one)]
        self.kube.helm("upgrade", "--install", self.name, str(CHART), *place, *sets, "--wait", "--timeout", "120s")

    def uninstall(self) -> None:
        """Remove the release; the CRD stays, as helm has it."""
        self.kube.helm("uninstall", self.name, "-n", self.namespace, "--ignore-not-found", "--wait", "--timeout", "60s")

    def may(self, verb: str, resource: str, namespace: str | None) -> bool:
        """Whether the operator's service account may do this there (None: in all namespaces), by the API server's word."""
        place = ["-n", namespace] if namespace else ["--all-namespaces"]
        who = f"--as=system:serviceaccount:{self.namespace}:{self.deployment}"
        try:
            return self.kube.kubectl("auth", "can-i", verb, resource, *place, who).strip() == "yes"
        except KubeError as error:
            if error.output.strip().endswith("no"):
                return False
            raise

    def logs(self) -> str:
        """What its pods have logged."""
        return self.kube.kubectl("logs", f"deployment/{self.deployment}", "-n", self.namespace, "--tail=-1")

    def pods(self) -> list[Object]:
        """The operator's pods."""
        return self.kube.list("pods", self.namespace, f"app.kubernetes.io/instance={self.name}")

    def scale(self, replicas: int) -> None:
        """Change the number of operators, and wait until so many are there and ready."""
        target = f"deployment/{self.deployment}"
        self.kube.kubectl("scale", target, "-n", self.namespace, f"--replicas={replicas}")
        wait_until(
            f"{replicas} operators",
            lambda: len(self.pods()) == replicas and all(is_ready(pod) for pod in self.pods()),
            60,
            interval=0.5,
        )

    def restart(self) -> None:
        """Replace the operator's pods, and wait until the new ones are ready and the old ones gone."""
        old = {pod["metadata"]["uid"] for pod in self.pods()}
        self.kube.kubectl(
            "delete", "pods", "-n", self.namespace, "-l", f"app.kubernetes.io/instance={self.name}", "--wait=false"
        )

        def replaced() -> bool:
            pods = self.pods()
            return bool(pods) and all(is_ready(pod) and pod["metadata"]["uid"] not in old for pod in pods)

        wait_until("a new operator ready", replaced, 90, interval=0.5)
