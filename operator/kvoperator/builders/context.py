"""What every builder needs to know of the cluster it builds for."""

from dataclasses import dataclass
from typing import Any

from kvoperator.names import API_VERSION, KIND, LABEL_CLUSTER_ID, Names, coordination_url, labels_of
from kvoperator.spec import DEFAULT_ZOOKEEPER_IMAGE, KVClusterSpec

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Context:
    """A KVCluster to build for. `default_image` is that of nodes and routers whose spec names none."""

    names: Names
    uid: str
    cluster_id: str
    spec: KVClusterSpec
    default_image: str

    @property
    def image(self) -> str:
        """The image of nodes and routers."""
        return self.spec.image or self.default_image

    @property
    def zookeeper_image(self) -> str:
        """The image of the ensemble's members."""
        return self.spec.zookeeper.image or DEFAULT_ZOOKEEPER_IMAGE

    @property
    def coordination(self) -> str:
        """The URL that nodes and routers are given."""
        zookeeper = self.spec.zookeeper
        hosts = zookeeper.connect or self.names.zookeeper_hosts(zookeeper.members)
        return coordination_url(hosts, self.cluster_id)

    def labels(self, component: str, partition: int | None = None) -> dict[str, str]:
        """Labels of an object of this cluster."""
        return labels_of(self.names, component, partition)

    def claim_labels(self, component: str, partition: int | None = None) -> dict[str, str]:
        """Labels of a volume claim: they say whose data it is, for a KVCluster made again."""
        return {**self.labels(component, partition), LABEL_CLUSTER_ID: self.cluster_id}

    def metadata(self, name: str, labels: dict[str, str]) -> Manifest:
        """Metadata of an object that goes when the KVCluster goes."""
        return {
            "name": name,
            "namespace": self.names.namespace,
            "labels": labels,
            "ownerReferences": [
                {
                    "apiVersion": API_VERSION,
                    "kind": KIND,
                    "name": self.names.cluster,
                    "uid": self.uid,
                    "controller": True,
                }
            ],
        }
