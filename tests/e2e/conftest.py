"""One cluster, one image, one operator and one KVCluster for all tests that don't need their own."""

import shutil
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e import image as images
from tests.e2e.cluster import Cluster
from tests.e2e.collect import collect
from tests.e2e.kube import Kube, KubeError
from tests.e2e.namespaces import KEEP, empty_namespace, remove_namespace
from tests.e2e.platforms import Platform, choose
from tests.e2e.release import Release

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "kvcluster.yaml"
NAMESPACE = "kv-e2e"
BUILD = "e2e.kvcluster.dev/build"  # with E2E_KEEP, a cluster of the same build is taken up again
REPORTS = ROOT / ".kvcluster" / "e2e-failures"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything below this folder needs a Kubernetes cluster."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """After a failure, collect what there is to know before fixtures clean up, and say where it is."""
    report = yield
    if report.failed and report.when in {"setup", "call"} and isinstance(item, pytest.Function):
        kube = item.funcargs.get("kube") or item.session.stash.get(KUBE, None)
        if isinstance(kube, Kube):
            target = REPORTS / item.name
            shutil.rmtree(target, ignore_errors=True)
            collect(kube, _namespaces(kube), target)
            report.sections.append(("objects, logs and status", f"collected in {target}"))
    return report


KUBE = pytest.StashKey[Kube]()


def _namespaces(kube: Kube) -> list[str]:
    try:
        found = kube.kubectl("get", "namespaces", "-o", "jsonpath={.items[*].metadata.name}").split()
    except KubeError:
        return []
    return [name for name in found if name.startswith(NAMESPACE) or name == Release(kube).namespace]


@pytest.fixture(scope="session")
def platform() -> Platform:
    """The cluster to break."""
    return choose()


@pytest.fixture(scope="session")
def kube(platform: Platform, request: pytest.FixtureRequest) -> Kube:
    """Kubectl and helm for it, once it is up."""
    found = Kube(platform.up(), platform.tools())
    request.session.stash[KUBE] = found
    return found


@pytest.fixture(scope="session")
def image(platform: Platform, kube: Kube) -> str:
    """The image, on every node."""
    return images.ensure(platform, kube)


@pytest.fixture(scope="session")
def operator(kube: Kube, image: str) -> Iterator[Release]:
    """The operator, running."""
    release = Release(kube)
    release.install(image, images.context_digest()[:12])
    yield release
    if not KEEP:
        release.uninstall()
        kube.delete_namespace(release.namespace)


@pytest.fixture(scope="session")
def example(image: str) -> dict[str, Any]:
    """examples/kvcluster.yaml with the image under test."""
    manifest: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    manifest["spec"]["image"] = image
    manifest["metadata"]["annotations"] = {BUILD: images.context_digest()}
    return manifest


@pytest.fixture(scope="session")
def shared(kube: Kube, platform: Platform, operator: Release, example: dict[str, Any]) -> Iterator[Cluster]:
    """The example's KVCluster, Available; `available_after` says how long that took."""
    made = Cluster(kube, platform, NAMESPACE, example["metadata"]["name"])
    found = kube.find("kvclusters", made.name, NAMESPACE) if KEEP else None
    if not found or found["metadata"].get("annotations", {}).get(BUILD) != example["metadata"]["annotations"][BUILD]:
        empty_namespace(kube, NAMESPACE)
    began = time.monotonic()
    kube.apply(example, NAMESPACE)
    made.wait_available(240)
    made.available_after = time.monotonic() - began
    yield made
    made.close()
    if not KEEP:
        remove_namespace(kube, NAMESPACE)


@pytest.fixture
def cluster(shared: Cluster) -> Cluster:
    """The shared KVCluster with every replica in sync, whatever the test before did to it."""
    shared.wait_whole()
    return shared
