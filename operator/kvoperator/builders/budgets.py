"""Disruption budgets: of a partition, of ZooKeeper and of the routers one pod at a time may be evicted."""

from kvoperator.builders.context import Context, Manifest
from kvoperator.names import COMPONENT_NODE, COMPONENT_ROUTER, COMPONENT_ZOOKEEPER, selector


def partition_budget(context: Context, partition: int) -> Manifest:
    """Of a partition's replicas."""
    return _budget(context, context.names.partition(partition), COMPONENT_NODE, partition)


def zookeeper_budget(context: Context) -> Manifest:
    """Of ZooKeeper's members."""
    return _budget(context, context.names.zookeeper, COMPONENT_ZOOKEEPER, None)


def router_budget(context: Context) -> Manifest:
    """Of the routers."""
    return _budget(context, context.names.router, COMPONENT_ROUTER, None)


def _budget(context: Context, name: str, component: str, partition: int | None) -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": context.metadata(name, context.labels(component, partition)),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": selector(context.names, component, partition)},
        },
    }
