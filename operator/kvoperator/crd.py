"""The CRD, made of the models: `python -m kvoperator.crd` prints it. `make generate` writes it to crds/ and the chart.

Pydantic's JSON schema becomes a structural one: references are put in place, titles go, what may be null may be left
out instead.
"""

import sys
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel

from kvoperator.names import GROUP, KIND, MAX_NAME, PLURAL, VERSION
from kvoperator.spec import KVClusterSpec, rule
from kvoperator.status import KVClusterStatus

Schema = dict[str, Any]

NAME_RULE = rule(
    f"self.metadata.name.size() <= {MAX_NAME} && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
    f"metadata.name must be at most {MAX_NAME} characters of a-z, 0-9 and '-', begin with a letter and not end with "
    "'-': Services are named after it",
)

COLUMNS: tuple[tuple[str, str, str, int, str], ...] = (
    ("Phase", "string", ".status.phase", 0, "Creating, Ready, Degraded, Unavailable or Deleting"),
    ("Partitions", "string", ".status.readyPartitions", 0, "Partitions whose leader serves, of all"),
    ("InSync", "string", ".status.inSyncReplicas", 0, "Replicas in sync, of all"),
    ("Replicas", "integer", ".spec.replicas", 0, "Database nodes of each partition"),
    ("Available", "string", '.status.conditions[?(@.type=="Available")].status', 0, "Every partition is served"),
    ("Reason", "string", '.status.conditions[?(@.type=="Degraded")].reason', 0, "What is wrong, in a word"),
    ("Message", "string", '.status.conditions[?(@.type=="Degraded")].message', 1, "What is wrong"),
    ("Endpoint", "string", ".status.endpoint", 1, "Where applications connect"),
    ("Age", "date", ".metadata.creationTimestamp", 0, ""),
)


def structural(model: type[BaseModel]) -> Schema:
    """A model's schema as the API server takes it."""
    schema = model.model_json_schema(mode="validation")
    return _convert(schema, schema.get("$defs", {}))


def _convert(schema: Mapping[str, Any], definitions: Mapping[str, Schema]) -> Schema:
    source = dict(schema)
    if "$ref" in source:
        # A model's own docstring describes the type; the field's description, where there is one, says it better.
        source = {**definitions[source.pop("$ref").rsplit("/", 1)[1]], **source}
    if "anyOf" in source:
        options = [option for option in source.pop("anyOf") if option.get("type") != "null"]
        assert len(options) == 1, f"only 'or null' can be made structural: {schema}"
        return _tidied({**_convert(options[0], definitions), **source})
    if "properties" in source:
        source["properties"] = {name: _convert(part, definitions) for name, part in source["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(source.get(key), Mapping):
            source[key] = _convert(source[key], definitions)
    return _tidied(source)


def _tidied(schema: Schema) -> Schema:
    schema.pop("title", None)
    schema.pop("$defs", None)
    if schema.get("default", ...) is None:
        schema.pop("default")
    if schema.get("additionalProperties") is False:
        schema.pop("additionalProperties")  # the API server refuses or prunes unknown fields by itself
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
        schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if "description" in schema:
        schema["description"] = " ".join(str(schema["description"]).split())
    return schema


def spec_schema() -> Schema:
    """The spec's schema: nested parts are there by default, whole, so that rules find what they compare."""
    schema = structural(KVClusterSpec)
    for part in ("storage", "zookeeper", "router"):
        inner = schema["properties"][part]
        inner["default"] = {name: p["default"] for name, p in inner["properties"].items() if "default" in p}
    return schema


def status_schema() -> Schema:
    """The status's schema, without defaults: what the operator has not written is not there."""
    schema: Schema = _without_defaults(structural(KVClusterStatus))
    return schema


def _without_defaults(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_defaults(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_defaults(item) for key, item in value.items() if key != "default"}
    return value


def crd() -> Schema:
    """The CustomResourceDefinition."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["kvc"],
                "categories": ["all"],
            },
            "versions": [_version()],
        },
    }


def _version() -> Schema:
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [
            {"name": name, "type": kind, "jsonPath": path, "priority": priority, "description": description}
            for name, kind, path, priority, description in COLUMNS
        ],
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.router.replicas",
                "statusReplicasPath": ".status.routers",
                "labelSelectorPath": ".status.routerSelector",
            },
        },
        "schema": {
            "openAPIV3Schema": {
                "description": "A partitioned, replicated key-value database.",
                "type": "object",
                "required": ["spec"],
                "properties": {
                    "apiVersion": {"type": "string"},
                    "kind": {"type": "string"},
                    "metadata": {"type": "object"},
                    "spec": spec_schema(),
                    "status": status_schema(),
                },
                "x-kubernetes-validations": [NAME_RULE],
            }
        },
    }


def crd_yaml() -> str:
    """The CRD as a file's text, stable between runs."""
    head = "# Generated from operator/kvoperator/spec.py by `make generate`; do not edit.\n"
    return head + yaml.safe_dump(crd(), sort_keys=True, width=120, default_flow_style=False)


if __name__ == "__main__":
    sys.stdout.write(crd_yaml())
