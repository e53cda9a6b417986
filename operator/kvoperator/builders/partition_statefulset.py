"""A partition's StatefulSet: its database nodes."""

from kvcommon.numbers import GRPC_PORT, PIPELINE_PORT, REDIS_PORT, REPLICATION_PORT
from kvoperator.builders import pods
from kvoperator.builders.context import Context, Manifest
from kvoperator.names import CLAIM, COMPONENT_NODE, NODE_CONTAINER, selector

USER = 10001
DATA = "/data"
REQUESTS = {"cpu": "50m", "memory": "128Mi"}


def partition_statefulset(context: Context, partition: int) -> Manifest:
    """The StatefulSet of one partition.

    Pods start all at once (they need one another to be ready) and are replaced only when the operator deletes them:
    Kubernetes does not know who leads.
    """
    name = context.names.partition(partition)
    labels = context.labels(COMPONENT_NODE, partition)
    storage = context.spec.storage
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": context.metadata(name, labels),
        "spec": {
            "serviceName": name,
            "replicas": context.spec.replicas,
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "revisionHistoryLimit": 5,
            "selector": {"matchLabels": selector(context.names, COMPONENT_NODE, partition)},
            "persistentVolumeClaimRetentionPolicy": pods.claim_retention(storage.retention),
            "template": {"metadata": {"labels": labels}, "spec": _pod(context, partition)},
            "volumeClaimTemplates": [
                pods.claim_template(
                    context.claim_labels(COMPONENT_NODE, partition), storage.size, storage.storageClassName
                )
            ],
        },
    }


def _pod(context: Context, partition: int) -> Manifest:
    return {
        "terminationGracePeriodSeconds": 30,
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "securityContext": pods.pod_security(USER),
        **pods.pull_secrets(context.spec.imagePullSecrets),
        **pods.spreading(selector(context.names, COMPONENT_NODE, partition)),
        "containers": [_container(context, partition)],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }


def _container(context: Context, partition: int) -> Manifest:
    return {
        "name": NODE_CONTAINER,
        "image": context.image,
        "imagePullPolicy": context.spec.imagePullPolicy,
        "args": ["kvnode"],
        "env": _environment(context, partition),
        "ports": [
            pods.port("grpc", GRPC_PORT),
            pods.port("replication", REPLICATION_PORT),
            pods.port("pipeline", PIPELINE_PORT),
            pods.port("redis", REDIS_PORT),
            pods.HTTP,
        ],
        "resources": pods.resources_of(context.spec.resources, REQUESTS),
        "securityContext": pods.container_security(),
        **pods.http_probes(),
        # A node writes the id of its run there at its start: the kubelet's word of its end then names the run.
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "volumeMounts": [{"name": CLAIM, "mountPath": DATA}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - an emptyDir
    }


def _environment(context: Context, partition: int) -> list[Manifest]:
    service = context.names.host(context.names.partition(partition))
    return [
        pods.variable_of_field("KV_POD", "metadata.name"),
        pods.variable_of_field("KV_ADVERTISE_HOST", "status.podIP"),
        pods.variable("KV_DNS_NAME", f"$(KV_POD).{service}"),
        pods.variable("KV_PARTITION", str(partition)),
        pods.variable("KV_CLUSTER_ID", context.cluster_id),
        pods.variable("KV_COORDINATION", context.coordination),
        pods.variable("KV_DATA_DIR", f"{DATA}/kv"),
        pods.variable("KV_DURABILITY", context.spec.durability),
        pods.variable("KV_REDIS_PORT", str(REDIS_PORT)),
    ]
