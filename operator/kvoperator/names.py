"""Names, labels and addresses of a KVCluster's objects; the one place that spells them (see docs/operator.md)."""

from dataclasses import dataclass

from kvcommon.numbers import ZOOKEEPER_PORT

GROUP = "kvcluster.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "KVCluster"
PLURAL = "kvclusters"
FIELD_MANAGER = "kvcluster-operator"
FINALIZER = f"{GROUP}/operator"
MAX_NAME = 40

LABEL_CLUSTER = f"{GROUP}/cluster"
LABEL_CLUSTER_ID = f"{GROUP}/cluster-id"
LABEL_PARTITION = f"{GROUP}/partition"
LABEL_ROLE = f"{GROUP}/role"
LABEL_COMPONENT = "app.kubernetes.io/component"

COMPONENT_NODE = "node"
COMPONENT_ROUTER = "router"
COMPONENT_ZOOKEEPER = "zookeeper"

ROLE_LEADER = "leader"
ROLE_FOLLOWER = "follower"

CLAIM = "data"
NODE_CONTAINER = "kvnode"
ROUTER_CONTAINER = "kvrouter"
ZOOKEEPER_CONTAINER = "zookeeper"


@dataclass(frozen=True, slots=True)
class Names:
    """The names of everything that KVCluster `cluster` in `namespace` is made of."""

    cluster: str
    namespace: str

    @property
    def service(self) -> str:
        """The routers' Service: what applications connect to."""
        return self.cluster

    @property
    def router(self) -> str:
        """The routers' Deployment and disruption budget."""
        return f"{self.cluster}-router"

    @property
    def zookeeper(self) -> str:
        """The ensemble's StatefulSet, its clients' Service and disruption budget."""
        return f"{self.cluster}-zk"

    @property
    def zookeeper_peers(self) -> str:
        """The ensemble's headless Service."""
        return f"{self.cluster}-zk-peers"

    def partition(self, partition: int) -> str:
        """A partition's StatefulSet, headless Service and disruption budget."""
        return f"{self.cluster}-p{partition}"

    def replica(self, partition: int, ordinal: int) -> str:
        """A replica's pod."""
        return f"{self.partition(partition)}-{ordinal}"

    def replicas(self, partition: int, replicas: int) -> tuple[str, ...]:
        """The pods of a partition."""
        return tuple(self.replica(partition, i) for i in range(replicas))

    def claim(self, pod: str) -> str:
        """The volume claim that a StatefulSet makes for a pod."""
        return f"{CLAIM}-{pod}"

    def host(self, service: str) -> str:
        """A Service's DNS name, good in any cluster domain."""
        return f"{service}.{self.namespace}.svc"

    @property
    def endpoint(self) -> str:
        """Host name of the routers' Service."""
        return self.host(self.service)

    def zookeeper_hosts(self, members: int) -> str:
        """The ensemble's members by name, `host:port,...`: a client that lost one goes to another by itself.

        Not the Service's one address: behind it a dead member stays until its machine's lease has run out.
        """
        peers = self.host(self.zookeeper_peers)
        return ",".join(f"{self.zookeeper}-{i}.{peers}:{ZOOKEEPER_PORT}" for i in range(members))


def coordination_url(hosts: str, cluster_id: str) -> str:
    """Where a cluster's coordination data is, as kvcoord.open takes it; `hosts` is `host:port,...`."""
    return f"zookeeper://{hosts}/kvcluster/{cluster_id}"


def selector(names: Names, component: str, partition: int | None = None) -> dict[str, str]:
    """The labels that select pods of one role: few, and never changed."""
    labels = {LABEL_CLUSTER: names.cluster, LABEL_COMPONENT: component}
    if partition is not None:
        labels[LABEL_PARTITION] = str(partition)
    return labels


def labels_of(names: Names, component: str, partition: int | None = None) -> dict[str, str]:
    """All labels of one object."""
    return {
        "app.kubernetes.io/name": "kvcluster",
        "app.kubernetes.io/instance": names.cluster,
        "app.kubernetes.io/managed-by": FIELD_MANAGER,
        **selector(names, component, partition),
    }
