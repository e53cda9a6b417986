"""What the pods of all roles have in common: security, spreading over machines, probes, volumes' claims."""

from collections.abc import Mapping
from typing import Any

from kvcommon.numbers import HTTP_PORT
from kvoperator.builders.context import Manifest
from kvoperator.names import CLAIM
from kvoperator.spec import Resources

HOST = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"

RESTRICTED: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def pod_security(user: int) -> Manifest:
    """Non-root, as the restricted Pod Security Standard asks; volumes belong to the user's group."""
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Manifest:
    """No privileges, and nothing on the root file system can be changed."""
    return {**RESTRICTED, "capabilities": {"drop": ["ALL"]}}


def spreading(labels: Mapping[str, str]) -> Manifest:
    """Pods with these labels on different machines and zones, as far as there are some; never at the price of running."""
    select = {"matchLabels": dict(labels)}
    return {
        "affinity": {
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 100, "podAffinityTerm": {"labelSelector": select, "topologyKey": HOST}}
                ]
            }
        },
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": select}
            for key in (HOST, ZONE)
        ],
    }


def resources_of(asked: Resources | None, otherwise: Mapping[str, str]) -> Manifest:
    """A container's resources; `otherwise` are the requests of one that nobody gave any, so that it is not the first to go."""
    if asked is None:
        return {"requests": dict(otherwise)}
    return {key: value for key, value in asked.model_dump().items() if value}


def http_probes() -> Manifest:
    """Probes of our own processes.

    Ready means serving, so it is asked often. Liveness tolerates 40 s: a process that is frozen for a while comes back
    with what it knows, a restarted one has to catch up. A start may take long (recovery of the log), as long as it lasts.
    """
    return {
        "startupProbe": _http("/livez", period=1, timeout=2, failures=300),
        "readinessProbe": _http("/readyz", period=2, timeout=2, failures=2),
        "livenessProbe": _http("/livez", period=5, timeout=5, failures=8),
    }


def _http(path: str, *, period: int, timeout: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }


def port(name: str, number: int) -> Manifest:
    """A container's port."""
    return {"name": name, "containerPort": number, "protocol": "TCP"}


HTTP = port("http", HTTP_PORT)


def variable(name: str, value: str) -> Manifest:
    """An environment variable."""
    return {"name": name, "value": value}


def variable_of_field(name: str, path: str) -> Manifest:
    """An environment variable that is a field of the pod itself."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def claim_template(labels: Mapping[str, str], size: str, storage_class: str | None) -> Manifest:
    """The claim of each pod's volume."""
    spec: Manifest = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}},
    }
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM, "labels": dict(labels)},
        "spec": spec,
    }


def claim_retention(retention: str) -> Manifest:
    """What the StatefulSet does with its claims; scaling never deletes one."""
    return {"whenDeleted": retention, "whenScaled": "Retain"}


def pull_secrets(names: list[str]) -> Manifest:
    """A pod's imagePullSecrets, left out when there are none."""
    return {"imagePullSecrets": [{"name": name} for name in names]} if names else {}
