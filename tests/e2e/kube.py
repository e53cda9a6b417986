"""kubectl and helm for the tests: thin, blocking, with errors that say what was run and what it answered."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import urllib3
import yaml
from kubernetes import config

T = TypeVar("T")
Object = dict[str, Any]


class KubeError(Exception):
    """A command failed; `output` is what it said."""

    def __init__(self, argv: Sequence[str], output: str) -> None:
        super().__init__(f"{' '.join(argv)}: {output.strip()}")
        self.output = output


class NotInTimeError(AssertionError):
    """What was waited for did not come."""


def wait_until(what: str, probe: Callable[[], T | None], seconds: float, *, interval: float = 0.25) -> T:
    """The first answer of `probe` that is not empty, asked again and again.

    An answer that can't be had yet (KubeError) counts as none. Raises NotInTimeError, with the last such error.
    """
    deadline = time.monotonic() + seconds
    last: object = None
    while True:
        try:
            found = probe()
            if found:
                return found
        except KubeError as error:
            last = error
        if time.monotonic() > deadline:
            raise NotInTimeError(f"{what}: not within {seconds:.0f} s" + (f"; last error: {last}" if last else ""))
        time.sleep(interval)


PATHS = {
    "pods": "/api/v1",
    "services": "/api/v1",
    "configmaps": "/api/v1",
    "events": "/api/v1",
    "persistentvolumeclaims": "/api/v1",
    "statefulsets": "/apis/apps/v1",
    "deployments": "/apis/apps/v1",
    "poddisruptionbudgets": "/apis/policy/v1",
    "leases": "/apis/coordination.k8s.io/v1",
    "kvclusters": "/apis/kvcluster.dev/v1alpha1",
}


SHORT = {"kvc": "kvclusters", "pvc": "persistentvolumeclaims", "pod": "pods", "service": "services"}


def _path(kind: str, namespace: str) -> str:
    plural = SHORT.get(kind, kind)
    return f"{PATHS[plural]}/namespaces/{namespace}/{plural}"


class Api:
    """Reads of the API server, over one connection: a kubectl for each would take the processors from what is tested."""

    def __init__(self, kubeconfig: Path) -> None:
        self._client = config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]

    def read(self, path: str, query: Mapping[str, str] | None = None) -> Object | None:
        """The JSON at a path, or None. Raises KubeError."""
        target = f"{path}?{urlencode(query)}" if query else path
        prepared = self._client.param_serialize("GET", target, auth_settings=["BearerToken"])
        try:
            answer = self._client.rest_client.pool_manager.request(
                "GET", prepared[1], headers=prepared[2], timeout=15.0
            )
        except urllib3.exceptions.HTTPError as error:
            raise KubeError(["GET", target], str(error)) from error
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise KubeError(["GET", target], f"{answer.status} {answer.data[:500]!r}")
        found: Object = json.loads(answer.data)
        return found


@dataclass(frozen=True)
class Kube:
    """kubectl and helm with one kubeconfig; `tools` comes before PATH."""

    kubeconfig: Path
    tools: Path | None = None

    @cached_property
    def _api(self) -> Api:
        return Api(self.kubeconfig)

    def kubectl(self, *words: str, stdin: str | None = None, timeout: float = 120.0) -> str:
        """Kubectl's standard output. Raises KubeError."""
        return self._run("kubectl", *words, stdin=stdin, timeout=timeout)

    def helm(self, *words: str, timeout: float = 300.0) -> str:
        """Helm's standard output. Raises KubeError."""
        return self._run("helm", *words, timeout=timeout)

    def get(self, kind: str, name: str, namespace: str) -> Object:
        """One object. Raises KubeError when it is not there."""
        found = self.find(kind, name, namespace)
        if found is None:
            raise KubeError(["get", kind, name, "-n", namespace], "there is none")
        return found

    def find(self, kind: str, name: str, namespace: str) -> Object | None:
        """One object, or None."""
        return self._api.read(f"{_path(kind, namespace)}/{name}")

    def list(self, kinds: str, namespace: str, selector: str = "") -> list[Object]:
        """Objects of a kind, or of several, with commas."""
        found = []
        for kind in kinds.split(","):
            answer = self._api.read(_path(kind, namespace), {"labelSelector": selector} if selector else {})
            found += (
                [{**item, "kind": answer["kind"].removesuffix("List")} for item in answer["items"]] if answer else []
            )
        return found

    def apply(self, manifest: Mapping[str, Any], namespace: str, *words: str) -> str:
        """Kubectl apply, as a person does it (client side, fields checked strictly)."""
        return self.kubectl("apply", "-n", namespace, "-f", "-", *words, stdin=yaml.safe_dump(dict(manifest)))

    def delete_namespace(self, name: str) -> None:
        """Delete a namespace and wait until it is gone."""
        self.kubectl("delete", "namespace", name, "--ignore-not-found", "--timeout=180s", timeout=200.0)

    def _run(self, program: str, *words: str, stdin: str | None = None, timeout: float) -> str:
        argv = [program, *words]
        path = os.environ.get("PATH", "")
        env = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": f"{self.tools}:{path}" if self.tools else path}
        try:
            done = subprocess.run(
                argv, check=False, capture_output=True, text=True, input=stdin, env=env, timeout=timeout
            )
        except subprocess.TimeoutExpired as error:
            raise KubeError(argv, f"no answer within {timeout:.0f} s") from error
        if done.returncode:
            raise KubeError(argv, done.stderr + done.stdout)
        return done.stdout


def condition(resource: Object, kind: str) -> Object | None:
    """A status condition by its type."""
    for one in resource.get("status", {}).get("conditions", []):
        if one["type"] == kind:
            found: Object = one
            return found
    return None


def holds(resource: Object, kind: str) -> bool:
    """Whether a status condition is True, and about the present generation."""
    found = condition(resource, kind)
    generation = resource["metadata"]["generation"]
    return found is not None and found["status"] == "True" and found.get("observedGeneration", generation) == generation


def is_ready(pod: Object) -> bool:
    """Whether a pod is Ready and not being deleted."""
    return holds(pod, "Ready") and "deletionTimestamp" not in pod["metadata"]


def restarts(pod: Object) -> int:
    """How often the pod's containers were started again."""
    return sum(status["restartCount"] for status in pod["status"].get("containerStatuses", []))
