"""A fault under load: four clients, two through routers and two straight to nodes, on keys they fight over."""

import random
import uuid
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

from kvclient import AsyncClient
from tests.e2e.cluster import Cluster, partition_of
from tests.e2e.kube import wait_until
from tests.support.doors import ClientDoor
from tests.support.workload import (
    BackgroundWorkload,
    Door,
    LoopThread,
    Plan,
    Report,
    Trouble,
    Workload,
    contended_keys,
)

KEYS = 60
LEAST_RATE = 100.0  # acknowledged writes a second before the fault
WARM = 2.0  # seconds before the fault in which the load is measured
# The bounds of what was promised, in seconds without an acknowledged write.
AFTER_KILL = 5.0
AFTER_DELETION = 1.0
WITHOUT_A_FOLLOWER = 2.5
NOTICED = 1.0  # in a partition that has no part in the fault; so long may a busy test machine take by itself


class Experiment:
    """Use as a context manager: the load runs inside. Then: `strike`, break something, `finish`, look at `gap`.

    `routers` are host:port addresses for the clients that go through a router; the Service's when left out. `doors` opens
    other clients instead of kvclient's, and `plan` is what they do.
    """

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        *,
        routers: Sequence[str] = (),
        nodes: Sequence[str] = (),
        doors: Callable[[], Awaitable[list[Door]]] | None = None,
        plan: Plan | None = None,
    ) -> None:
        self.cluster = cluster
        self.name = name
        self._doors = doors or self._kvclients
        self._plan = plan
        self.routers = list(routers) or self._router_addresses()
        self.nodes = list(nodes) or self._node_addresses()
        self.load = BackgroundWorkload(self._open)
        self.partitions = range(len(cluster.partitions()))
        self._where = partition_of(cluster)
        self.struck = self.ended = 0.0
        self._warm = 0.0
        self._report: Report | None = None

    async def _open(self) -> Workload:
        where = self._where
        # A history begins with absent keys, also on a cluster that an earlier run has left.
        keys = contended_keys(KEYS, where, self.partitions, f"{self.name}/{uuid.uuid4().hex[:8]}")
        return Workload(await self._doors(), keys, where, plan=self._plan, rng=random.Random(self.name))

    async def _kvclients(self) -> list[Door]:
        return [ClientDoor(client) for client in await self._connected()]

    async def _connected(self) -> list[AsyncClient]:
        through = [await AsyncClient.connect(self.routers, mode="router") for _ in range(2)]
        straight = [await AsyncClient.connect(self.nodes, mode="direct") for _ in range(2)]
        return [*through, *straight]

    def _router_addresses(self) -> list[str]:
        return [self.cluster.address()]

    def _node_addresses(self) -> list[str]:
        return [self.cluster.pod_address(pod) for pod in self.cluster.node_pods()]

    def __enter__(self) -> Self:
        self.load.__enter__()
        self.flow(count=20)  # connections are made, maps are known
        wait_until("the load to be what it is to be", self._is_steady, 90, interval=0.1)
        self._warm = self.load.clock()  # only now: the first two seconds had the load's own beginning in them
        wait_until("the load measured", lambda: self.load.clock() >= self._warm + WARM, 10, interval=0.1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.load.__exit__(kind, error, trace)

    def _is_steady(self) -> bool:
        now = self.load.clock()
        return self.load.timeline.rate(now - WARM, now) >= 1.2 * LEAST_RATE

    def flow(self, *, count: int = 100, seconds: float = 60.0) -> None:
        """Wait until, from now on, so many writes were acknowledged in every partition."""
        now = self.load.clock()

        def flowing() -> bool:
            return all(self.load.acknowledged_since(partition, now) >= count for partition in self.partitions)

        wait_until(f"{count} more writes in every partition", flowing, seconds, interval=0.05)

    def strike(self) -> float:
        """The moment of the fault; to be called just before it. Asserts that the load is what it is to be."""
        self.struck = self.load.clock()
        rate = self.load.timeline.rate(self._warm, self.struck)
        print(f"\n{self.name}: {rate:.0f} acknowledged writes/s before the fault")
        assert rate >= LEAST_RATE, (
            f"only {rate:.0f} acknowledged writes/s before the fault; the test asks for {LEAST_RATE}"
        )
        return self.struck

    def reconnect(self) -> None:
        """Lead kvclient's clients to a KVCluster that was made again: it has other addresses.

        Every key is read there before one is written, so that the history shows what was not kept.
        """
        self.routers, self.nodes = self._router_addresses(), self._node_addresses()
        LoopThread.shared().run(self._turn())

    async def _turn(self) -> None:
        clients = await self._connected()
        await self.load.workload.settle(ClientDoor(clients[0]))
        for door, client in zip(self.load.workload.doors, clients, strict=True):
            assert isinstance(door, ClientDoor)
            await door.turn_to(client)

    def finish(self) -> Report:
        """Let writes flow once more, end the load, judge the history, print gaps. AssertionError if the promise was broken."""
        self.flow()
        self.ended = self.load.clock()
        self._report = report = self.load.finish()
        print(f"{self.name}: {report.summary()}")
        for partition in self.partitions:
            usual = report.timeline.gap(partition, self._warm, self.struck)
            others = report.timeline.gap_of_others(partition, self.struck, self.ended)
            print(
                f"{self.name}: p{partition} gap {self.gap(partition):.2f} s, {others:.2f} s without what the load itself "
                f"stood still (before the fault {usual:.2f} s)"
            )
        for trouble in report.troubles[:20]:
            print(f"{self.name}: {trouble.invoked - self.struck:+.2f} s {trouble}")
        faults = report.faults()
        assert not faults, f"{len(faults)} breaches of the promise:\n" + "\n".join(faults[:5])
        return report

    def gap(self, partition: int, since: float | None = None, until: float | None = None) -> float:
        """The longest time without an acknowledged write after the fault, in seconds."""
        assert self._report is not None
        start = self.struck if since is None else since
        return self._report.timeline.gap(partition, start, self.ended if until is None else until)

    def assert_unnoticed(self, *partitions: int, since: float | None = None, until: float | None = None) -> None:
        """Partitions that have no part in the fault notice nothing of it.

        When the load's own process gets nowhere, as it may on a machine that starts pods on the same processors, that is
        not the database's doing.
        """
        assert self._report is not None
        start, end = self.struck if since is None else since, self.ended if until is None else until
        gaps = {partition: self._report.timeline.gap_of_others(partition, start, end) for partition in partitions}
        noticed = [f"p{partition} for {gap:.2f} s" for partition, gap in gaps.items() if gap > NOTICED]
        assert not noticed, f"no writes in {', '.join(noticed)}, where nothing was broken"

    def troubles(self, since: float, until: float) -> list[Trouble]:
        """Failed and unknown operations under way in this time."""
        assert self._report is not None
        return self._report.troubles_between(since, until)
