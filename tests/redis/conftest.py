"""Servers that all tests of this folder share: real ones, and ours."""

from collections.abc import Iterator

import pytest

from tests.redis.real import real_redis
from tests.redis.servers import Server


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
