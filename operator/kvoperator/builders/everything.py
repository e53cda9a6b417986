"""All objects of a KVCluster, in the order in which they are made."""

from kvoperator.builders.budgets import partition_budget, router_budget, zookeeper_budget
from kvoperator.builders.context import Context, Manifest
from kvoperator.builders.partition_statefulset import partition_statefulset
from kvoperator.builders.router_deployment import router_deployment
from kvoperator.builders.services import (
    partition_service,
    router_service,
    zookeeper_peer_service,
    zookeeper_service,
)
from kvoperator.builders.zookeeper_statefulset import zookeeper_statefulset


def build(context: Context) -> tuple[Manifest, ...]:
    """Services before the pods that are named by them; ZooKeeper before those that ask it."""
    objects: list[Manifest] = []
    if context.spec.zookeeper.managed:
        objects += [
            zookeeper_peer_service(context),
            zookeeper_service(context),
            zookeeper_budget(context),
            zookeeper_statefulset(context),
        ]
    for partition in range(context.spec.partitions):
        objects += [
            partition_service(context, partition),
            partition_budget(context, partition),
            partition_statefulset(context, partition),
        ]
    objects += [router_service(context), router_budget(context), router_deployment(context)]
    return tuple(objects)
