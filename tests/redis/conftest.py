"""Servers that all tests of this folder share: real ones, and ours."""

import asyncio
from collections.abc import Callable, Iterator, Mapping

import pytest

from kvcommon.server import loop_factory
from tests.redis.ours import BlockingCluster, as_server, running_cluster
from tests.redis.real import ensure_installed, real_redis
from tests.redis.servers import Server


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests here run on the loop that nodes and routers run on: uvloop's transports are not quite asyncio's."""
    return {"uvloop": loop_factory()}


@pytest.fixture(scope="session")
def plain_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real Redis without cluster support."""
    with real_redis(tmp_path_factory.mktemp("redis"), cluster=False) as server:
        yield server


@pytest.fixture(scope="session")
def cluster_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real Redis with cluster support that owns all slots."""
    with real_redis(tmp_path_factory.mktemp("redis"), cluster=True) as server:
        yield server


@pytest.fixture(scope="session")
def our_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The only node of a cluster of ours: it owns all slots. What it says does not depend on its disk."""
    folder = tmp_path_factory.mktemp("node")
    with running_cluster(folder, partitions=1, replicas=1, router=False, durability="memory") as cluster:
        yield as_server(cluster.nodes[0])


@pytest.fixture(scope="session")
def our_router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The router of a cluster of ours with three partitions."""
    with running_cluster(tmp_path_factory.mktemp("router"), partitions=3, replicas=1, durability="memory") as cluster:
        yield as_server(cluster.router)


@pytest.fixture(scope="session")
def whole_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlockingCluster]:
    """Two partitions of three nodes, and a router; and Redis's own tools are there."""
    ensure_installed()
    with running_cluster(tmp_path_factory.mktemp("cluster"), partitions=2, replicas=3) as cluster:
        yield cluster
