"""The CRD's own rules, tried on a real API server: what it takes, what it refuses and with which sentence.

Needs no image and no operator. Changes are tried on KVClusters that can never run, by `--dry-run=server`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.kube import Kube, KubeError
from tests.e2e.namespaces import remove_namespace

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "kv-e2e-manifests"
NOWHERE = "127.0.0.1:1/no/such-image:1"
MANAGED = {
    "partitions": 1,
    "replicas": 1,
    "image": NOWHERE,
    "router": {"replicas": 0},
    "zookeeper": {"replicas": 1, "image": NOWHERE, "storage": {"size": "2Gi"}},
    "storage": {"size": "2Gi", "retention": "Delete"},
}
EXTERNAL = {**MANAGED, "zookeeper": {"connect": "nowhere.invalid:2181"}}
PLAIN = {**MANAGED, "zookeeper": {"image": NOWHERE}}


def manifest(spec: dict[str, Any], name: str = "never") -> dict[str, Any]:
    return {"apiVersion": "kvcluster.dev/v1alpha1", "kind": "KVCluster", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def namespace(kube: Kube) -> Iterator[str]:
    """A namespace with three KVClusters to change."""
    kube.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    kube.kubectl("wait", "--for=condition=Established", "crd/kvclusters.kvcluster.dev", "--timeout=30s")
    remove_namespace(kube, NAMESPACE)
    kube.kubectl("create", "namespace", NAMESPACE)
    for name, spec in (("managed", MANAGED), ("external", EXTERNAL), ("plain", PLAIN)):
        kube.apply(manifest(spec, name), NAMESPACE)
    yield NAMESPACE
    remove_namespace(kube, NAMESPACE)


def refusal(kube: Kube, asked: dict[str, Any]) -> str:
    with pytest.raises(KubeError) as refused:
        kube.apply(asked, NAMESPACE, "--dry-run=server")
    return refused.value.output


def accept(kube: Kube, asked: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(kube.apply(asked, NAMESPACE, "--dry-run=server", "-o", "yaml"))
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda p: p.name)
def test_the_examples_are_taken(kube: Kube, namespace: str, path: Path) -> None:
    asked = yaml.safe_load(path.read_text())
    if asked["kind"] == "KVCluster":
        accept(kube, asked)


def test_an_empty_spec_gets_the_documented_defaults(kube: Kube, namespace: str) -> None:
    spec = accept(kube, manifest({}))["spec"]

    assert (spec["partitions"], spec["replicas"], spec["durability"]) == (3, 3, "fsync")
    assert spec["storage"] == {"size": "10Gi", "retention": "Retain"}
    assert spec["router"] == {"replicas": 2, "serviceType": "ClusterIP"}


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"zookeeper": {"replicas": 4}}, "zookeeper.replicas must be odd"),
        ({"zookeeper": {"replicas": 0}}, "spec.zookeeper.replicas"),
        ({"zookeeper": {"replicas": 9}}, "spec.zookeeper.replicas"),
        ({"replicas": 2, "minInSync": 3}, "minInSync must not be larger than replicas"),
        ({"zookeeper": {"connect": "a:2181", "replicas": 3}}, "give either connect"),
        ({"zookeeper": {"connect": "a:2181", "storage": {"size": "1Gi"}}}, "give either connect"),
        ({"zookeeper": {"connect": "a"}}, "spec.zookeeper.connect"),
        ({"replcas": 3}, 'unknown field "spec.replcas"'),
        ({"router": {"count": 3}}, 'unknown field "spec.router.count"'),
        ({"durability": "none"}, "spec.durability"),
        ({"partitions": 0}, "spec.partitions"),
        ({"storage": {"size": "big"}}, "spec.storage.size"),
        ({"storage": {"size": "511Mi"}}, "storage.size is 511Mi: a node takes no write"),
        ({"resources": {"limits": {"memory": "much"}}}, "spec.resources.limits"),
    ],
)
def test_a_spec_that_can_not_be_is_refused(kube: Kube, namespace: str, spec: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(kube, manifest(spec))


def test_the_smallest_volumes_are_taken(kube: Kube, namespace: str) -> None:
    accept(kube, manifest({"storage": {"size": "512Mi"}, "zookeeper": {"storage": {"size": "64Mi"}}}))


@pytest.mark.parametrize("name", ["1st", "a" * 41, "a.b"])
def test_a_name_that_no_service_can_have_is_refused(kube: Kube, namespace: str, name: str) -> None:
    assert "metadata.name must be at most 40 characters" in refusal(kube, manifest({}, name))


@pytest.mark.parametrize("name", ["a", "a" * 40, "kv-1"])
def test_names_that_services_can_have_are_taken(kube: Kube, namespace: str, name: str) -> None:
    accept(kube, manifest({}, name))


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("managed", {"partitions": 2}, "spec.partitions can't be changed yet"),
        ("managed", {"replicas": 3}, "spec.replicas can't be changed yet"),
        ("managed", {"durability": "memory"}, "spec.durability can't be changed"),
        ("managed", {"storage": {"size": "1Gi", "retention": "Delete"}}, "a volume can't shrink"),
        ("managed", {"storage": {"size": "2Gi", "storageClassName": "other"}}, "storageClassName can't be changed"),
        (
            "managed",
            {"zookeeper": {"replicas": 3, "storage": {"size": "2Gi"}}},
            "zookeeper.replicas can't be changed yet",
        ),
        ("managed", {"zookeeper": {"replicas": 1, "storage": {"size": "1Gi"}}}, "a volume can't shrink"),
        ("managed", {"zookeeper": {"replicas": 1}}, "zookeeper.storage can't be removed"),
        ("managed", {"zookeeper": {"connect": "a:2181"}}, "zookeeper.connect can't be added or removed"),
        ("external", {"zookeeper": {}}, "zookeeper.connect can't be added or removed"),
        ("plain", {"zookeeper": {"storage": {"size": "512Mi"}}}, "can only grow"),
        ("plain", {"zookeeper": {"replicas": 5}}, "zookeeper.replicas can't be changed yet"),
    ],
)
def test_a_change_that_can_not_be_is_refused(
    kube: Kube, namespace: str, name: str, change: dict[str, Any], sentence: str
) -> None:
    base = {"managed": MANAGED, "external": EXTERNAL, "plain": PLAIN}[name]
    assert sentence in refusal(kube, manifest({**base, **change}, name))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("managed", {"storage": {"size": "2049Mi", "retention": "Delete"}}),
        ("managed", {"storage": {"size": "2Gi", "retention": "Retain"}}),
        ("managed", {"image": "another:1"}),
        ("managed", {"router": {"replicas": 3}}),
        ("managed", {"minInSync": 1}),  # what it is anyway
        ("plain", {"zookeeper": {"replicas": 3}}),  # what it is anyway
        ("plain", {"zookeeper": {"storage": {"size": "1Gi"}}}),  # what it is anyway
        ("external", {"zookeeper": {"connect": "elsewhere.invalid:2181"}}),
    ],
)
def test_a_change_that_can_be_is_taken(kube: Kube, namespace: str, name: str, change: dict[str, Any]) -> None:
    base = {"managed": MANAGED, "external": EXTERNAL, "plain": PLAIN}[name]
    accept(kube, manifest({**base, **change}, name))


def test_scaling_means_the_routers(kube: Kube, namespace: str) -> None:
    kube.kubectl("scale", "kvc/external", "-n", NAMESPACE, "--replicas=1")

    assert kube.get("kvc", "external", NAMESPACE)["spec"]["router"]["replicas"] == 1
