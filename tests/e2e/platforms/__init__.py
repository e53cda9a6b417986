"""Kubernetes clusters that the end-to-end tests can break: how to build for them, and how to kill, cut and pause their parts."""

import os
import subprocess
from pathlib import Path

from tests.e2e.platforms.base import Platform, PlatformError
from tests.e2e.platforms.kind import Kind
from tests.e2e.platforms.localkube import KUBECONFIG as LOCALKUBE_KUBECONFIG
from tests.e2e.platforms.localkube import Localkube, kube_tool

__all__ = ["Platform", "PlatformError", "choose"]


def choose() -> Platform:
    """The platform that E2E_PLATFORM names, or the one of the kubeconfig, or one that can be made here.

    Raises PlatformError when it is unknown, or when there is nothing here to make a cluster with.
    """
    named = os.environ.get("E2E_PLATFORM") or _of_kubeconfig(os.environ.get("KUBECONFIG"))
    if named is None:
        named = "localkube" if kube_tool().exists() else "kind"
    if named == "localkube":
        return Localkube(kube_tool(), Path(os.environ.get("KUBECONFIG") or LOCALKUBE_KUBECONFIG))
    if named == "kind":
        return Kind(os.environ.get("E2E_KIND_CLUSTER", "kvcluster-e2e"))
    raise PlatformError(f"E2E_PLATFORM={named} is not known: localkube or kind")


def _of_kubeconfig(path: str | None) -> str | None:
    if not path:
        return None
    if Path(path) == LOCALKUBE_KUBECONFIG:
        return "localkube"
    argv = ["kubectl", "--kubeconfig", path, "config", "current-context"]
    try:
        context = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise PlatformError(f"KUBECONFIG={path}: its context can't be read ({error}); set E2E_PLATFORM") from error
    if context == "localkube":
        return "localkube"
    if context.startswith("kind-"):
        os.environ.setdefault("E2E_KIND_CLUSTER", context.removeprefix("kind-"))
        return "kind"
    raise PlatformError(f"KUBECONFIG={path}: context {context} is neither localkube's nor kind's; set E2E_PLATFORM")
