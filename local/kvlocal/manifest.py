"""A KVCluster manifest as a local cluster's shape: the checks that the API server makes in Kubernetes."""

import re
from pathlib import Path
from typing import Any

import yaml

from kvcommon.errors import ConfigurationError
from kvlocal.shape import Shape
from kvoperator.names import API_VERSION, KIND, MAX_NAME
from kvoperator.spec import parse_spec

NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")  # DNS-1035, as the CRD has it


def load_shape(path: Path) -> Shape:
    """The shape that the only KVCluster of a file asks for.

    Raises ConfigurationError: the file, the field and what is wrong with it.
    """
    try:
        documents = [d for d in yaml.safe_load_all(path.read_text()) if d is not None]
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror}; name a KVCluster manifest") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not YAML: {error}") from error
    clusters = [d for d in documents if isinstance(d, dict) and d.get("kind") == KIND]
    if len(clusters) != 1:
        raise ConfigurationError(f"{path} has {len(clusters)} objects of kind {KIND}: it must have one")
    try:
        return _shape(clusters[0])
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _shape(manifest: dict[str, Any]) -> Shape:
    if manifest.get("apiVersion") != API_VERSION:
        raise ConfigurationError(f"apiVersion is {manifest.get('apiVersion')!r}: this kvlocal knows {API_VERSION}")
    metadata = manifest.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise ConfigurationError(
            f"metadata.name is {name!r}: it must be lower case letters, digits and '-', beginning with a letter, "
            f"at most {MAX_NAME} of them"
        )
    spec = parse_spec(manifest.get("spec"))
    return Shape(name, spec.partitions, spec.replicas, spec.min_in_sync, spec.durability)
