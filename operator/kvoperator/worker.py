"""One worker per KVCluster: woken by anything, it gathers, plans and carries out, again and again.

Waking says nothing of why, so a lost or doubled wake-up does no harm; a timer wakes it too. Beside it runs the quick path of
the word of death, which may not wait for a whole round.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from kvcommon.errors import KVClusterError
from kvcommon.numbers import ZOOKEEPER_PORT
from kvcoord.contract import Coordination, CoordinationUnavailableError
from kvoperator.actions import ReportDeath
from kvoperator.apply import Applier
from kvoperator.gather import Gathered, gather
from kvoperator.kube import Json, Kube, KubeError
from kvoperator.link import Link
from kvoperator.metrics import Metrics
from kvoperator.names import KIND, coordination_url
from kvoperator.observe import view_cluster, view_pod
from kvoperator.planner import Plan, plan, wanted_keys
from kvoperator.plans.deaths import deaths_due
from kvoperator.snapshot import ClusterView, CoordinationView, PodView, Snapshot
from kvoperator.spec import KVClusterSpec

log = structlog.get_logger()
CONNECT_POLL = 0.05  # seconds


@dataclass(frozen=True, slots=True)
class Pace:
    """Times of a worker, in seconds."""

    resync: float = 5.0  # a round at least so often
    gap: float = 0.2  # between two rounds, however often it is woken
    backoff: float = 1.0  # after a round that failed, doubled up to `backoff_most`
    backoff_most: float = 15.0
    death_retry: float = 0.5
    connect: float = 8.0  # to the coordination of a cluster that is served already, before it counts as away


@dataclass(frozen=True)
class Tools:
    """What every worker uses."""

    kube: Kube
    opener: Callable[[str], Coordination]
    now: Callable[[], datetime]
    metrics: Metrics
    default_image: str
    by_address: bool = False  # reach ZooKeeper by its Service's address: from outside of the cluster's DNS
    pace: Pace = Pace()


class Worker:
    """Looks after one KVCluster until it is gone."""

    def __init__(self, namespace: str, name: str, tools: Tools) -> None:
        self.namespace, self.name = namespace, name
        self._tools = tools
        self._woken = asyncio.Event()
        self._dying = asyncio.Event()
        self._pods: dict[str, PodView] = {}
        self._link = Link(tools.opener, self._coordination_changed)
        self._applier = Applier(tools.kube, lambda: self._link.coordination, tools.now)
        self._failures: tuple[str, ...] = ()

    def wake(self) -> None:
        """Something may have changed."""
        self._woken.set()

    def pod_seen(self, body: Json, *, gone: bool) -> None:
        """A pod as the watch has it now: the kubelet's word of an end is passed on at once."""
        pod = view_pod(body)
        if gone:
            self._pods.pop(pod.name, None)
        else:
            self._pods[pod.name] = pod
        if pod.ended:
            self._dying.set()
        self.wake()

    def _coordination_changed(self) -> None:
        self._dying.set()
        self.wake()

    @property
    def woken(self) -> bool:
        """Whether something happened since the last round began."""
        return self._woken.is_set()

    async def run(self) -> None:
        """Work until the KVCluster is gone."""
        structlog.contextvars.bind_contextvars(cluster=self.name, namespace=self.namespace)
        undertaker = asyncio.create_task(self._pass_on_deaths(), name=f"deaths {self.name}")
        try:
            await self._rounds()
        finally:
            undertaker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await undertaker
            await self._link.close()

    async def _rounds(self) -> None:
        pace, delay = self._tools.pace, self._tools.pace.backoff
        while True:
            self._woken.clear()
            try:
                with self._tools.metrics.round():
                    alive = await self._round()
                if not alive:
                    return
                delay = pace.backoff
            except Exception as error:
                log.warning("round failed", error=str(error), exc_info=not isinstance(error, KVClusterError))
                await asyncio.sleep(delay)
                delay = min(delay * 2, pace.backoff_most)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pace.resync):
                    await self._woken.wait()
            await asyncio.sleep(pace.gap)

    async def _round(self) -> bool:
        """One look and what follows from it; whether the KVCluster is still there."""
        body = await self._tools.kube.get(KIND, self.namespace, self.name)
        if body is None:
            return False
        cluster = view_cluster(body)
        snapshot = await self._snapshot(cluster)
        decided = plan(snapshot)
        await self._carry_out(cluster, decided)
        if decided.again:
            self.wake()
        return True

    async def _snapshot(self, cluster: ClusterView) -> Snapshot:
        tools = self._tools
        empty = Snapshot(cluster, tools.now(), str(uuid.uuid4()), tools.default_image)
        wanted = wanted_keys(empty, cluster.spec) if cluster.spec else ()
        there = await gather(tools.kube, cluster.names, wanted)
        coordination, problem = await self._ask(cluster, there)
        return Snapshot(
            cluster=cluster,
            now=empty.now,
            fresh_id=empty.fresh_id,
            default_image=empty.default_image,
            objects=there.objects,
            statefulsets=there.statefulsets,
            routers=there.routers,
            pods=there.pods,
            claims=there.claims,
            coordination=coordination,
            coordination_error=problem,
            applied=dict(self._applier.applied),
            reported=dict(self._applier.reported),
            failures=self._failures,
        )

    async def _ask(self, cluster: ClusterView, there: Gathered) -> tuple[CoordinationView | None, str]:
        url = self._url(cluster, there)
        if cluster.spec is None or cluster.deleting_since is not None or not url:
            return None, "not made yet"
        # What serves is not called into question merely because this operator has only just begun to connect.
        opened = await self._link.open(url)
        patience = self._tools.pace.connect if opened and cluster.status.born else 0.0
        until = asyncio.get_running_loop().time() + patience
        while True:
            try:
                return await self._link.read(range(cluster.spec.partitions)), ""
            except CoordinationUnavailableError as error:
                if asyncio.get_running_loop().time() >= until:
                    return None, str(error)
                await asyncio.sleep(CONNECT_POLL)

    def _url(self, cluster: ClusterView, there: Gathered) -> str:
        spec, cluster_id = cluster.spec, cluster.status.clusterId
        if spec is None or not cluster_id:
            return ""
        if spec.zookeeper.managed and self._tools.by_address:
            address = there.zookeeper_address
            return coordination_url(f"{address}:{ZOOKEEPER_PORT}", cluster_id) if address else ""
        return coordination_url(_hosts(cluster, spec), cluster_id)

    async def _carry_out(self, cluster: ClusterView, decided: Plan) -> None:
        failures: list[str] = []
        for action in decided.actions:
            try:
                await self._applier.carry_out(cluster, action)
            except CoordinationUnavailableError as error:
                log.info("coordination away", action=type(action).__name__, error=str(error))
            except KubeError as error:
                if error.status == 409:
                    self.wake()  # it is another one by now: look again
                    continue
                log.warning("action failed", action=type(action).__name__, error=str(error))
                failures.append(str(error))
        if tuple(failures) != self._failures:
            self._failures = tuple(failures)
            self.wake()
        await self._applier.write_status(cluster, decided.status)
        for event in decided.events:
            await self._applier.post(cluster, event)

    async def _pass_on_deaths(self) -> None:
        """The quick path: from the watch's word to coordination, without a round in between."""
        while True:
            await self._dying.wait()
            self._dying.clear()
            view = self._link.view
            partitions = {partition: state.value for partition, state in view.partitions.items()}
            due = deaths_due(tuple(self._pods.values()), partitions, view.members, self._applier.reported)
            for death in due:
                try:
                    await self._applier.report(ReportDeath(death))
                    self._tools.metrics.deaths.inc()
                except CoordinationUnavailableError as error:
                    log.info("word of death waits", pod=death.pod, error=str(error))
                    self._dying.set()
                    await asyncio.sleep(self._tools.pace.death_retry)


def _hosts(cluster: ClusterView, spec: KVClusterSpec) -> str:
    return spec.zookeeper.connect or cluster.names.zookeeper_hosts(spec.zookeeper.members)
