"""Clusters of our own processes, for tests that block: the cluster's event loop turns in a thread of its own."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from kvlocal.cluster import LocalCluster
from tests.redis.notation import version
from tests.redis.servers import Server
from tests.redis.wire import RawConnection
from tests.support.local_cluster import local_cluster

T = TypeVar("T")
HOST = "127.0.0.1"
CALL_SECONDS = 120.0


class BlockingCluster:
    """A LocalCluster for tests that block."""

    def __init__(self, cluster: LocalCluster, loop: asyncio.AbstractEventLoop) -> None:
        self.cluster = cluster
        self._loop = loop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something in the cluster's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS)

    def address(self, name: str) -> tuple[str, int]:
        """A process's Redis port."""
        return HOST, self.cluster.port(name, "redis")

    @property
    def router(self) -> tuple[str, int]:
        """The router's Redis port."""
        return self.address(self.cluster.shape.router)

    @property
    def nodes(self) -> list[tuple[str, int]]:
        """Every node's Redis port."""
        return [self.address(pod) for pod in self.cluster.shape.pods]

    def leader(self, partition: int) -> str:
        """The pod that leads."""
        return self.run(self.cluster.leader(partition))

    def kill(self, pod: str) -> None:
        """SIGKILL; it stays down."""
        self.run(self.cluster.kill(pod))

    def wait_next_leader(self, partition: int, epoch: int) -> tuple[str, int]:
        """Pod and epoch of the first leader above an epoch."""
        return self.run(self.cluster.wait_leader(partition, epoch))

    def epoch(self, partition: int) -> int:
        """The partition's epoch now."""
        return self.run(self.cluster.state(partition)).epoch

    def mend(self, pod: str, partition: int) -> None:
        """Start a killed pod again and wait until it is in sync."""

        async def mended() -> None:
            self.cluster.restart(pod)
            await self.cluster.wait_in_sync(partition)

        self.run(mended())


@contextmanager
def running_cluster(
    folder: Path, *, partitions: int, replicas: int, router: bool = True, durability: str = "fsync"
) -> Iterator[BlockingCluster]:
    """A serving cluster, ended with the block."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="cluster", daemon=True)
    thread.start()

    def run(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result(CALL_SECONDS)

    context = local_cluster(folder, partitions=partitions, replicas=replicas, router=router, durability=durability)
    try:
        cluster = run(context.__aenter__())
        try:
            yield BlockingCluster(cluster, loop)
        finally:
            run(context.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def as_server(address: tuple[str, int]) -> Server:
    """One of our Redis ports, with the Redis version it says it is."""
    with RawConnection(address) as connection:
        info = connection.call(b"INFO", b"server").decode()
    line = next(line for line in info.splitlines() if line.startswith("redis_version:"))
    return Server(*address, version(line.partition(":")[2]))
