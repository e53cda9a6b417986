"""ZooKeeper's StatefulSet, by the contract of the official image (docker.io/library/zookeeper)."""

from kvcommon.numbers import ZOOKEEPER_PORT
from kvoperator.builders import pods
from kvoperator.builders.context import Context, Manifest
from kvoperator.builders.services import ZOOKEEPER_ELECTION_PORT, ZOOKEEPER_QUORUM_PORT
from kvoperator.names import CLAIM, COMPONENT_ZOOKEEPER, ZOOKEEPER_CONTAINER, selector
from kvoperator.spec import ZooKeeperStorage

USER = 1000  # the image's zookeeper user
REQUESTS = {"cpu": "200m", "memory": "256Mi"}
HEAP_MIB = 128  # a few kilobytes of state per partition, and as much again per client
CONF, DATA = "/zk", "/data"

TICK_MS = 500
"""ZooKeeper's unit of time: sessions may last 2 to 20 ticks, 1 to 10 s, and ours ask for 6. A member that has been silent for
SYNC_LIMIT ticks, 1.5 s, is given up, so that an ensemble that lost its leader's machine has the next in some 2.5 s: as long as
a partition that lost a follower with that machine may pause."""
SYNC_LIMIT = 3
INIT_LIMIT = 20

START = f"""set -e
mkdir -p {CONF}/conf {DATA}/snapshots {DATA}/log
cp -n /conf/* {CONF}/conf/ 2>/dev/null || true
rm -f {CONF}/conf/zoo.cfg
printf 'networkaddress.cache.ttl=2\\nnetworkaddress.cache.negative.ttl=0\\n' > {CONF}/java.security
export ZOO_MY_ID=$(( ${{HOSTNAME##*-}} + 1 ))
exec /docker-entrypoint.sh zkServer.sh start-foreground
"""
"""The member's number is its pod's ordinal plus one; the configuration is written anew at every start, into a folder that
is not the read-only image's; Java asks DNS again, as addresses of pods change."""

SERVES = f"exec 3<>/dev/tcp/127.0.0.1/{ZOOKEEPER_PORT} && printf srvr >&3 && timeout 2 cat <&3 | grep -q '^Mode: [fls]'"
"""Ready: this member leads, follows or stands alone. bash itself asks: it is in every such image, nc may not be."""


def zookeeper_statefulset(context: Context) -> Manifest:
    """The ensemble. Kubernetes rolls it by itself, one member at a time, each ready before the next."""
    names, spec = context.names, context.spec
    storage = spec.zookeeper.storage or ZooKeeperStorage.model_validate({})
    labels = context.labels(COMPONENT_ZOOKEEPER)
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": context.metadata(names.zookeeper, labels),
        "spec": {
            "serviceName": names.zookeeper_peers,
            "replicas": spec.zookeeper.members,
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "RollingUpdate"},
            "revisionHistoryLimit": 5,
            "selector": {"matchLabels": selector(names, COMPONENT_ZOOKEEPER)},
            "persistentVolumeClaimRetentionPolicy": pods.claim_retention(spec.storage.retention),
            "template": {"metadata": {"labels": labels}, "spec": _pod(context)},
            "volumeClaimTemplates": [
                pods.claim_template(context.claim_labels(COMPONENT_ZOOKEEPER), storage.size, storage.storageClassName)
            ],
        },
    }


def _pod(context: Context) -> Manifest:
    return {
        "terminationGracePeriodSeconds": 15,
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "securityContext": pods.pod_security(USER),
        **pods.pull_secrets(context.spec.imagePullSecrets),
        **pods.spreading(selector(context.names, COMPONENT_ZOOKEEPER)),
        "containers": [_container(context)],
        "volumes": [{"name": name, "emptyDir": {}} for name in ("conf", "logs", "tmp")],
    }


def _container(context: Context) -> Manifest:
    return {
        "name": ZOOKEEPER_CONTAINER,
        "image": context.zookeeper_image,
        "imagePullPolicy": context.spec.imagePullPolicy,
        "command": ["bash", "-c", START],
        "env": [pods.variable(name, value) for name, value in _environment(context).items()],
        "ports": [
            pods.port("client", ZOOKEEPER_PORT),
            pods.port("quorum", ZOOKEEPER_QUORUM_PORT),
            pods.port("election", ZOOKEEPER_ELECTION_PORT),
        ],
        "resources": pods.resources_of(context.spec.zookeeper.resources, REQUESTS),
        "securityContext": pods.container_security(),
        "startupProbe": _listening(period=1, failures=120),
        "readinessProbe": {
            "exec": {"command": ["bash", "-c", SERVES]},
            "periodSeconds": 5,
            "timeoutSeconds": 5,
            "failureThreshold": 2,
        },
        "livenessProbe": _listening(period=5, failures=8),
        "volumeMounts": [
            {"name": CLAIM, "mountPath": DATA},
            {"name": "conf", "mountPath": CONF},
            {"name": "logs", "mountPath": "/logs"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - an emptyDir
        ],
    }


def _listening(*, period: int, failures: int) -> Manifest:
    return {
        "tcpSocket": {"port": "client"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _environment(context: Context) -> dict[str, str]:
    return {
        "ZOO_CONF_DIR": f"{CONF}/conf",
        "ZOOCFGDIR": f"{CONF}/conf",
        "ZOO_DATA_DIR": f"{DATA}/snapshots",
        "ZOO_DATA_LOG_DIR": f"{DATA}/log",
        "ZOO_LOG_DIR": "/logs",
        "ZOO_TICK_TIME": str(TICK_MS),
        "ZOO_INIT_LIMIT": str(INIT_LIMIT),
        "ZOO_SYNC_LIMIT": str(SYNC_LIMIT),
        "ZOO_MAX_CLIENT_CNXNS": "0",
        "ZOO_ADMINSERVER_ENABLED": "false",
        "ZOO_AUTOPURGE_SNAPRETAINCOUNT": "3",
        "ZOO_AUTOPURGE_PURGEINTERVAL": "1",
        "ZOO_4LW_COMMANDS_WHITELIST": "srvr,mntr,ruok",
        "ZOO_CFG_EXTRA": "quorumListenOnAllIPs=true preAllocSize=4096 snapCount=10000",
        "ZOO_SERVERS": _servers(context),
        "ZK_SERVER_HEAP": str(HEAP_MIB),
        "JVMFLAGS": f"-XX:+UseSerialGC -Djava.security.properties={CONF}/java.security -Dzookeeper.cnxTimeout=1500",
    }


def _servers(context: Context) -> str:
    peers = context.names.host(context.names.zookeeper_peers)
    return " ".join(
        f"server.{i + 1}={context.names.zookeeper}-{i}.{peers}:{ZOOKEEPER_QUORUM_PORT}:{ZOOKEEPER_ELECTION_PORT};{ZOOKEEPER_PORT}"
        for i in range(context.spec.zookeeper.members)
    )
