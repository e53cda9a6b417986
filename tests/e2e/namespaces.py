"""Namespaces of the tests: made empty, and removed without being held up by a finalizer."""

import os

from tests.e2e.cluster import KIND
from tests.e2e.kube import Kube, KubeError

KEEP = bool(os.environ.get("E2E_KEEP"))  # leave everything in place at the end, for a look at it


def empty_namespace(kube: Kube, name: str) -> None:
    """A new namespace; what an earlier run left there is removed first."""
    remove_namespace(kube, name)
    kube.kubectl("create", "namespace", name)


def remove_namespace(kube: Kube, name: str) -> None:
    """Delete the KVClusters of a namespace, then itself. If no operator takes part, its finalizers are taken off."""
    found = kube.kubectl("get", "namespace", name, "--ignore-not-found", "-o", "name")
    if not found.strip():
        return
    try:
        kube.kubectl("delete", KIND, "--all", "-n", name, "--timeout=90s")
    except KubeError:
        for one in kube.list("kvclusters", name):
            patch = '{"metadata":{"finalizers":null}}'
            kube.kubectl("patch", KIND, one["metadata"]["name"], "-n", name, "--type=merge", "-p", patch)
    kube.delete_namespace(name)
