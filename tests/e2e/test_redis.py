"""The Redis door: any Redis client reaches the database at the Service or at the pods, and loses nothing in a failover."""

from collections.abc import Awaitable, Callable, Sequence

import pytest

from kvcommon.numbers import REDIS_PORT
from tests.e2e.cluster import Cluster
from tests.e2e.experiment import AFTER_KILL, Experiment
from tests.e2e.kube import Object, restarts, wait_until
from tests.support.redis_door import RedisDoor, cluster_client, plain_client
from tests.support.workload import Door, LoopThread, Plan

PLAN = Plan(conditional=0.0)  # Redis shows no versions


def port_of(service: Object) -> int | None:
    """The number of a Service's port "redis"."""
    return next((port["port"] for port in service["spec"]["ports"] if port["name"] == "redis"), None)


def service_address(cluster: Cluster) -> str:
    """host:port of the routers' Redis door."""
    return f"{cluster.address().rsplit(':', 1)[0]}:{REDIS_PORT}"


def node_addresses(cluster: Cluster) -> list[str]:
    """host:port of every node's Redis door."""
    return [f"{pod['status']['podIP']}:{REDIS_PORT}" for pod in cluster.node_pods()]


def test_services_and_pods_have_the_redis_port(cluster: Cluster) -> None:
    names = [cluster.name, *(f"{cluster.name}-p{number}" for number in range(len(cluster.partitions())))]
    for name in names:
        assert port_of(cluster.kube.get("services", name, cluster.namespace)) == REDIS_PORT, name
    for pod in (*cluster.node_pods(), *cluster.router_pods()):
        ports = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
        assert ports.get("redis") == REDIS_PORT, pod["metadata"]["name"]


def test_the_cluster_client_learns_addresses_that_it_can_reach(cluster: Cluster) -> None:
    """From any one pod it finds all others, keys of every slot, and the routers' plain door shows the same keys."""
    keys = [f"redis/{number}".encode() for number in range(300)]
    leaders = {f"{cluster.pod(state.leader)['status']['podIP']}:{REDIS_PORT}" for state in cluster.partitions()}

    async def write_and_read() -> tuple[set[str], Sequence[object], Sequence[object]]:
        nodes, routers = cluster_client(node_addresses(cluster)[:1]), plain_client(service_address(cluster))
        try:
            await nodes.initialize()
            for key in keys:
                await nodes.execute_command("SET", key, b"value of " + key)
            primaries = {node.name for node in nodes.get_primaries()}
            at_nodes = [await nodes.execute_command("GET", key) for key in keys]
            return primaries, at_nodes, await routers.mget(keys)
        finally:
            await nodes.aclose()
            await routers.aclose()

    primaries, at_nodes, at_routers = LoopThread.shared().run(write_and_read())
    assert primaries == leaders
    assert at_nodes == at_routers == [b"value of " + key for key in keys]


async def cluster_doors(cluster: Cluster) -> list[Door]:
    """Four clients that follow the map by themselves."""
    return [RedisDoor(cluster_client(node_addresses(cluster))) for _ in range(4)]


async def plain_doors(cluster: Cluster) -> list[Door]:
    """Four clients that know no cluster, at the routers."""
    return [RedisDoor(plain_client(service_address(cluster))) for _ in range(4)]


@pytest.mark.parametrize("doors", [cluster_doors, plain_doors], ids=["cluster client", "plain client"])
def test_redis_clients_lose_no_acknowledged_write_when_a_leader_is_killed(
    cluster: Cluster, doors: Callable[[Cluster], Awaitable[list[Door]]]
) -> None:
    before = cluster.partition(0)
    restarted = restarts(cluster.pod(before.leader))
    name = f"redis {doors.__name__}"
    with Experiment(cluster, name, doors=lambda: doors(cluster), plan=PLAN) as experiment:
        experiment.strike()
        cluster.signal(before.leader, "KILL")
        cluster.wait_for_new_leader(0, before.epoch)
        wait_until("the killed container started again", lambda: restarts(cluster.pod(before.leader)) > restarted, 30)
        cluster.wait_whole()
        experiment.finish()
    assert experiment.gap(0) <= AFTER_KILL
