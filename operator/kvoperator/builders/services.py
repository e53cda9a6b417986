"""Services: the routers' (what applications use), a partition's, ZooKeeper's two."""

from kvcommon.numbers import GRPC_PORT, HTTP_PORT, PIPELINE_PORT, REDIS_PORT, REPLICATION_PORT, ZOOKEEPER_PORT
from kvoperator.builders.context import Context, Manifest
from kvoperator.names import COMPONENT_NODE, COMPONENT_ROUTER, COMPONENT_ZOOKEEPER, selector

ZOOKEEPER_QUORUM_PORT = 2888
ZOOKEEPER_ELECTION_PORT = 3888


def router_service(context: Context) -> Manifest:
    """The Service named as the cluster, in front of ready routers."""
    names = context.names
    return _service(
        context,
        names.service,
        COMPONENT_ROUTER,
        None,
        {"type": context.spec.router.serviceType, "ports": [_port("grpc", GRPC_PORT), _port("redis", REDIS_PORT)]},
    )


def partition_service(context: Context, partition: int) -> Manifest:
    """A partition's headless Service: gives its pods names, ready or not, for they look for one another to become it."""
    return _service(
        context,
        context.names.partition(partition),
        COMPONENT_NODE,
        partition,
        {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "ports": [
                _port("grpc", GRPC_PORT),
                _port("replication", REPLICATION_PORT),
                _port("pipeline", PIPELINE_PORT),
                _port("redis", REDIS_PORT),
                _port("http", HTTP_PORT),
            ],
        },
    )


def zookeeper_service(context: Context) -> Manifest:
    """ZooKeeper for its clients: members that serve."""
    return _service(
        context,
        context.names.zookeeper,
        COMPONENT_ZOOKEEPER,
        None,
        {"type": "ClusterIP", "ports": [_port("client", ZOOKEEPER_PORT)]},
    )


def zookeeper_peer_service(context: Context) -> Manifest:
    """ZooKeeper's members among themselves: all that exist."""
    return _service(
        context,
        context.names.zookeeper_peers,
        COMPONENT_ZOOKEEPER,
        None,
        {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "ports": [
                _port("client", ZOOKEEPER_PORT),
                _port("quorum", ZOOKEEPER_QUORUM_PORT),
                _port("election", ZOOKEEPER_ELECTION_PORT),
            ],
        },
    )


def _port(name: str, number: int) -> Manifest:
    return {"name": name, "port": number, "targetPort": number, "protocol": "TCP"}


def _service(context: Context, name: str, component: str, partition: int | None, spec: Manifest) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": context.metadata(name, context.labels(component, partition)),
        "spec": {**spec, "selector": selector(context.names, component, partition)},
    }
