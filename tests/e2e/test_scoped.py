"""An operator with rights in its own namespace only, as `helm install --set namespaceScoped=true` makes it."""

from collections.abc import Iterator

import pytest

from tests.e2e import image as images
from tests.e2e.cluster import KIND, Cluster
from tests.e2e.kube import Kube, wait_until
from tests.e2e.namespaces import KEEP, empty_namespace, remove_namespace
from tests.e2e.platforms import Platform
from tests.e2e.release import Release
from tests.e2e.test_lifecycle import MADE, get, left_of, put, small

NAMESPACE = "kv-e2e-scoped"


@pytest.fixture(scope="module")
def scoped(kube: Kube, operator: Release, image: str) -> Iterator[Release]:
    """The one operator at work: that of all namespaces is away meanwhile."""
    release = Release(kube, NAMESPACE, "scoped")
    empty_namespace(kube, NAMESPACE)
    operator.scale(0)
    try:
        release.install(image, images.context_digest()[:12], "namespaceScoped=true")
        yield release
        if not KEEP:
            kube.kubectl("delete", KIND, "--all", "-n", NAMESPACE, "--timeout=90s")
            release.uninstall()
            remove_namespace(kube, NAMESPACE)
    finally:
        operator.scale(1)


def test_it_has_no_rights_beyond_its_namespace(kube: Kube, scoped: Release, operator: Release) -> None:
    assert "ClusterRole" not in kube.helm("get", "manifest", scoped.name, "-n", scoped.namespace)
    for verb, resource in (("list", "kvclusters.kvcluster.dev"), ("watch", "pods"), ("patch", "services")):
        assert scoped.may(verb, resource, scoped.namespace), f"may not {verb} {resource}"
        assert not scoped.may(verb, resource, operator.namespace), f"may {verb} {resource} elsewhere"
        assert not scoped.may(verb, resource, None), f"may {verb} {resource} everywhere"


@pytest.mark.parametrize(
    ("verb", "resource"),
    [("get", "secrets"), ("get", "pods"), ("create", "pods"), ("get", "nodes"), ("patch", "customresourcedefinitions")],
)
def test_neither_operator_may_do_what_it_need_not(scoped: Release, operator: Release, verb: str, resource: str) -> None:
    assert not scoped.may(verb, resource, scoped.namespace)
    assert not operator.may(verb, resource, scoped.namespace)


def test_it_makes_and_ends_a_cluster_of_its_namespace_and_sees_no_other(
    kube: Kube, platform: Platform, scoped: Release, shared: Cluster, image: str
) -> None:
    """On somebody else's ZooKeeper, the shared cluster's; a KVCluster of the same name elsewhere stays as it was written."""
    connect = {"connect": shared.zookeeper_hosts()}
    mine = Cluster(kube, platform, scoped.namespace, "alone")
    elsewhere = Cluster(kube, platform, shared.namespace, "alone")
    kube.apply(small("alone", image, "Delete", connect), elsewhere.namespace)
    try:
        kube.apply(small("alone", image, "Delete", connect), mine.namespace)
        mine.wait_available(120)
        assert not mine.zookeeper_pods()
        put(mine, b"whose", b"mine")
        assert get(mine, b"whose") == b"mine"
        kube.kubectl("delete", KIND, mine.name, "-n", mine.namespace, "--timeout=90s")
        wait_until("nothing left, volumes included", lambda: not left_of(mine, f"{MADE},persistentvolumeclaims"), 90)
        untouched = elsewhere.resource()
        assert "status" not in untouched
        assert "finalizers" not in untouched["metadata"]
        assert not left_of(elsewhere, MADE)
        assert "forbidden" not in scoped.logs().lower()
    finally:
        mine.close()
        kube.kubectl("delete", KIND, elsewhere.name, "-n", elsewhere.namespace, "--timeout=30s")
