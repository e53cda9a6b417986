"""A KVCluster under test: its objects by the names that docs promise, what it says of itself, and how to reach it."""

from dataclasses import dataclass, field
from typing import cast

import grpc

from kvcommon.numbers import GRPC_PORT, ZOOKEEPER_PORT
from kvcommon.slotmap import SlotMap
from kvcommon.slots import slot_of
from kvoperator.names import (
    COMPONENT_NODE,
    COMPONENT_ROUTER,
    COMPONENT_ZOOKEEPER,
    LABEL_CLUSTER,
    LABEL_COMPONENT,
    Names,
    coordination_url,
)
from kvoperator.spec import parse_spec
from kvproto.v1 import cluster_pb2, cluster_pb2_grpc
from tests.e2e.kube import Kube, KubeError, Object, holds, is_ready, wait_until
from tests.e2e.platforms import Platform

KIND = "kvclusters.kvcluster.dev"
CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # So that a channel whose router lost its machine finds another behind the Service.
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", 2000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class UnansweredError(KubeError):
    """No server answered; while something is waited for, that means: not yet."""


@dataclass
class Cluster:
    """The KVCluster `name`; `channel`s are kept open until `close`."""

    kube: Kube
    platform: Platform
    namespace: str
    name: str
    available_after: float = 0.0  # seconds from kubectl apply
    _address: str = ""
    _channels: dict[str, grpc.Channel] = field(default_factory=dict)

    # --- objects -------------------------------------------------------------------------------------------------

    def resource(self) -> Object:
        """The KVCluster itself."""
        return self.kube.get("kvclusters", self.name, self.namespace)

    def pod(self, name: str) -> Object:
        """One pod."""
        return self.kube.get("pods", name, self.namespace)

    def pods(self, component: str = "") -> list[Object]:
        """The pods of nodes, routers and ZooKeeper, or of one of these (kvoperator.names.COMPONENT_*)."""
        labels = {LABEL_CLUSTER: self.name} | ({LABEL_COMPONENT: component} if component else {})
        return self.kube.list("pods", self.namespace, ",".join(f"{key}={value}" for key, value in labels.items()))

    def zookeeper_pods(self) -> list[Object]:
        """ZooKeeper's pods."""
        return self.pods(COMPONENT_ZOOKEEPER)

    def router_pods(self) -> list[Object]:
        """The routers' pods."""
        return self.pods(COMPONENT_ROUTER)

    def node_pods(self) -> list[Object]:
        """The database nodes' pods."""
        return self.pods(COMPONENT_NODE)

    def claim_of(self, pod: str) -> str:
        """The name of a pod's volume claim."""
        volumes = self.pod(pod)["spec"]["volumes"]
        claims = [
            volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume
        ]
        assert len(claims) == 1, f"{pod} has the claims {claims}, expected one"
        return cast("str", claims[0])

    def signal(self, pod: str, signal: str) -> None:
        """A signal to the processes of a pod's first container."""
        container = self.pod(pod)["spec"]["containers"][0]["name"]
        self.platform.signal_pod(self.namespace, pod, container, signal)

    # --- what it says --------------------------------------------------------------------------------------------

    def topology(self, via: str = "") -> cluster_pb2.Topology:
        """What the router at `via` knows, or some router, through the Service. Raises UnansweredError."""
        address = via or self.address()
        stub = cluster_pb2_grpc.ClusterStub(self.channel(address))
        try:
            return stub.GetTopology(cluster_pb2.GetTopologyRequest(), timeout=5, wait_for_ready=True)
        except grpc.RpcError as error:
            raise UnansweredError([self.name, "GetTopology", address], str(error)) from error

    def node_status(self, pod: str) -> cluster_pb2.NodeStatus:
        """What a node says of itself. Raises grpc.RpcError when it can't be reached."""
        stub = cluster_pb2_grpc.ClusterStub(self.channel(self.pod_address(self.pod(pod))))
        return stub.GetNodeStatus(cluster_pb2.GetNodeStatusRequest(), timeout=5)

    def partition(self, number: int, via: str = "") -> cluster_pb2.Partition:
        """Who leads a partition and who is in sync."""
        return next(one for one in self.topology(via).partitions if one.partition == number)

    def partitions(self) -> list[cluster_pb2.Partition]:
        """All partitions, ascending."""
        return list(self.topology().partitions)

    def slot_map(self) -> SlotMap:
        """The map."""
        topology = self.topology()
        return SlotMap.of_ranges(topology.map_version, [(r.first, r.last, r.partition) for r in topology.slots])

    def a_follower(self, number: int) -> str:
        """The last in the list of a partition's in-sync followers."""
        state = self.partition(number)
        return [pod for pod in state.in_sync if pod != state.leader][-1]

    # --- addresses -----------------------------------------------------------------------------------------------

    def address(self) -> str:
        """host:port of the Service."""
        if not self._address:
            service = self.kube.get("services", self.name, self.namespace)
            self._address = f"{service['spec']['clusterIP']}:{GRPC_PORT}"
        return self._address

    def zookeeper_hosts(self) -> str:
        """Its own ensemble's members by name, as spec.zookeeper.connect of another KVCluster takes them."""
        return Names(self.name, self.namespace).zookeeper_hosts(len(self.zookeeper_pods()))

    def coordination_url(self) -> str:
        """Its coordination data in its own ensemble, for this machine, which knows no names."""
        hosts = ",".join(f"{pod['status']['podIP']}:{ZOOKEEPER_PORT}" for pod in self.zookeeper_pods())
        return coordination_url(hosts, self.resource()["status"]["clusterId"])

    def pod_address(self, pod: Object) -> str:
        """host:port of a pod's gRPC door. Raises UnansweredError when Kubernetes does not know its address yet."""
        if "podIP" not in pod["status"]:
            raise UnansweredError([self.name, "address", pod["metadata"]["name"]], "no address yet")
        return f"{pod['status']['podIP']}:{GRPC_PORT}"

    def channel(self, address: str) -> grpc.Channel:
        """A blocking channel, one per address."""
        if address not in self._channels:
            self._channels[address] = grpc.insecure_channel(address, CHANNEL_OPTIONS)
        return self._channels[address]

    def close(self) -> None:
        """Close the channels, and forget where the Service is."""
        self._address = ""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    # --- waiting -------------------------------------------------------------------------------------------------

    def wait_available(self, seconds: float) -> Object:
        """Until the condition Available holds for the present generation; the KVCluster then."""

        def probe() -> Object | None:
            found = self.resource()
            return found if holds(found, "Available") else None

        return wait_until(f"{self.name} Available", probe, seconds, interval=0.5)

    def wait_whole(self, seconds: float = 90.0) -> None:
        """Until every pod is Ready and every partition has a leader and all its replicas in sync."""
        wait_until(f"pods of {self.name} ready", self._pods_ready, seconds, interval=0.5)
        wait_until(f"{self.name} with all replicas in sync", self._all_in_sync, seconds, interval=0.5)

    def wait_for_new_leader(self, number: int, old_epoch: int, via: str = "") -> str:
        """Until a partition has a leader of a later epoch; its pod."""

        def probe() -> str | None:
            state = self.partition(number, via)
            return state.leader if state.epoch > old_epoch and state.leader else None

        return wait_until(f"p{number} of {self.name} in an epoch after {old_epoch}", probe, 30)

    def _pods_ready(self) -> bool:
        spec = parse_spec(self.resource()["spec"])
        wanted = spec.partitions * spec.replicas + spec.zookeeper.members + spec.router.replicas
        return [is_ready(pod) for pod in self.pods()].count(True) >= wanted

    def _all_in_sync(self) -> bool:
        partitions = self.partitions()
        return bool(partitions) and all(p.leader and sorted(p.in_sync) == sorted(p.replicas) for p in partitions)


def partition_of(cluster: Cluster) -> "PartitionOf":
    """The map as a function from keys to partitions."""
    return PartitionOf(cluster.slot_map())


@dataclass(frozen=True)
class PartitionOf:
    """Which partition owns a key, by one version of the map."""

    slots: SlotMap

    def __call__(self, key: bytes) -> int:
        return self.slots.owners[slot_of(key)]
