"""The routers' Deployment."""

from kvcommon.numbers import GRPC_PORT, REDIS_PORT
from kvoperator.builders import pods
from kvoperator.builders.context import Context, Manifest
from kvoperator.builders.partition_statefulset import USER
from kvoperator.names import COMPONENT_ROUTER, ROUTER_CONTAINER, selector

REQUESTS = {"cpu": "50m", "memory": "96Mi"}
GONE_AFTER = 15  # seconds a router stays on a machine that does not answer: it keeps nothing, another is as good


def router_deployment(context: Context) -> Manifest:
    """The Deployment of the routers; one is added before one is taken away."""
    names = context.names
    labels = context.labels(COMPONENT_ROUTER)
    select = selector(names, COMPONENT_ROUTER)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": context.metadata(names.router, labels),
        "spec": {
            "replicas": context.spec.router.replicas,
            "revisionHistoryLimit": 5,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": select},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "terminationGracePeriodSeconds": 30,
                    "enableServiceLinks": False,
                    "automountServiceAccountToken": False,
                    "securityContext": pods.pod_security(USER),
                    **pods.pull_secrets(context.spec.imagePullSecrets),
                    **pods.spreading(select),
                    "tolerations": [
                        {
                            "key": f"node.kubernetes.io/{state}",
                            "operator": "Exists",
                            "effect": "NoExecute",
                            "tolerationSeconds": GONE_AFTER,
                        }
                        for state in ("not-ready", "unreachable")
                    ],
                    "containers": [_container(context)],
                    "volumes": [{"name": "tmp", "emptyDir": {}}],
                },
            },
        },
    }


def _container(context: Context) -> Manifest:
    return {
        "name": ROUTER_CONTAINER,
        "image": context.image,
        "imagePullPolicy": context.spec.imagePullPolicy,
        "args": ["kvrouter"],
        "env": [
            pods.variable("KV_CLUSTER_ID", context.cluster_id),
            pods.variable("KV_COORDINATION", context.coordination),
        ],
        "ports": [pods.port("grpc", GRPC_PORT), pods.port("redis", REDIS_PORT), pods.HTTP],
        "resources": pods.resources_of(context.spec.router.resources, REQUESTS),
        "securityContext": pods.container_security(),
        **pods.http_probes(),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - an emptyDir
    }
