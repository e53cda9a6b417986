from pathlib import Path
from typing import Any

import yaml

from kvoperator.crd import crd, crd_yaml

ROOT = Path(__file__).resolve().parents[3]


def version() -> Any:
    return crd()["spec"]["versions"][0]


def spec_schema() -> Any:
    return version()["schema"]["openAPIV3Schema"]["properties"]["spec"]


def nodes(schema: Any) -> Any:
    yield schema
    for part in schema.get("properties", {}).values():
        yield from nodes(part)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key])


def test_the_committed_file_is_what_the_models_give() -> None:
    assert (ROOT / "crds" / "kvclusters.yaml").read_text() == crd_yaml()


def test_the_schema_is_structural() -> None:
    """Every node says its type, and has none of JSON schema's references, titles or null types."""
    for node in nodes(version()["schema"]["openAPIV3Schema"]):
        assert "type" in node or node.get("x-kubernetes-int-or-string")
        assert not {"$ref", "$defs", "title", "oneOf"} & set(node)


def test_unknown_fields_are_left_to_the_api_server_to_refuse() -> None:
    for node in nodes(spec_schema()):
        assert not node.get("x-kubernetes-preserve-unknown-fields")
        assert node.get("additionalProperties") is not True


def test_nested_defaults_are_whole_so_that_rules_find_what_they_compare() -> None:
    assert spec_schema()["properties"]["storage"]["default"] == {"size": "10Gi", "retention": "Retain"}
    assert spec_schema()["properties"]["router"]["default"] == {"replicas": 2, "serviceType": "ClusterIP"}


def test_an_external_ensemble_is_not_contradicted_by_defaults() -> None:
    assert spec_schema()["properties"]["zookeeper"]["default"] == {}
    assert not [name for name, p in spec_schema()["properties"]["zookeeper"]["properties"].items() if "default" in p]


def test_what_must_not_change_is_refused_by_name() -> None:
    messages = " ".join(
        rule["message"] for node in nodes(spec_schema()) for rule in node.get("x-kubernetes-validations", ())
    )
    for field in (
        "spec.partitions",
        "spec.replicas",
        "spec.minInSync",
        "spec.durability",
        "zookeeper.replicas",
        "size",
    ):
        assert field in messages


def test_status_and_scale_are_subresources() -> None:
    assert version()["subresources"]["status"] == {}
    assert version()["subresources"]["scale"]["specReplicasPath"] == ".spec.router.replicas"


def test_the_short_name_is_kvc() -> None:
    assert crd()["spec"]["names"]["shortNames"] == ["kvc"]


def test_the_file_is_yaml_that_says_where_it_comes_from() -> None:
    assert crd_yaml().startswith("# Generated")
    assert yaml.safe_load(crd_yaml()) == crd()
