"""The whole operator but for kopf, against an API server and a coordination service in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest

from kvcoord.contract import Coordination, PartitionState, RunId, Versioned
from kvcoord.memory import MemoryStore
from kvoperator.actions import Apply
from kvoperator.apply import Applier
from kvoperator.kube import KubeError
from kvoperator.metrics import Metrics
from kvoperator.names import LABEL_ROLE
from kvoperator.observe import view_cluster
from kvoperator.snapshot import ObjectKey
from kvoperator.worker import Pace, Tools, Worker
from tests.unit.kvoperator.api import MemoryKube, run_pods
from tests.unit.kvoperator.pictures import member

QUICK = Pace(resync=0.02, gap=0.0, backoff=0.01, backoff_most=0.02, death_retry=0.01)


@dataclass
class World:
    """One KVCluster `c` of two partitions in namespace `ns`."""

    kube: MemoryKube = field(default_factory=MemoryKube)
    stores: dict[str, MemoryStore] = field(default_factory=dict)
    nodes: list[Coordination] = field(default_factory=list)

    def ask(self, **spec: Any) -> None:
        """`kubectl apply`."""
        self.kube.put("KVCluster", "c", {"metadata": {}, "spec": {"partitions": 2, **spec}})

    def open(self, url: str) -> Coordination:
        """What a coordination URL leads to: a store for each cluster id."""
        return self.stores.setdefault(url.rsplit("/", 1)[1], MemoryStore()).session()

    @property
    def body(self) -> dict[str, Any]:
        return self.kube.objects["KVCluster", "ns", "c"]

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.body.get("status", {})
        return found

    def condition(self, kind: str) -> str:
        return next((str(c["status"]) for c in self.status.get("conditions", ()) if c["type"] == kind), "")

    def degraded(self) -> str:
        """The reason of the condition Degraded."""
        return next((str(c["reason"]) for c in self.status.get("conditions", ()) if c["type"] == "Degraded"), "")

    def worker(self, pace: Pace = QUICK) -> Worker:
        tools = Tools(self.kube, self.open, lambda: datetime.now(UTC), Metrics(), "kvcluster:dev", pace=pace)
        return Worker("ns", "c", tools)

    @asynccontextmanager
    async def operator(self, pace: Pace = QUICK) -> AsyncIterator[Worker]:
        """An operator at work; it is cut off at the end, as by a kill."""
        worker = self.worker(pace)
        task = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def start_nodes(self) -> None:
        """Kubernetes runs the pods, and each node registers."""
        await self.kube.until(lambda: len(self.kube.of("StatefulSet")) == 3 and self.kube.of("Deployment"))
        run_pods(self.kube)
        for name in sorted(self.kube.of("Pod")):
            if "-p" in name:
                node = self.open(f"memory:/{self.status['clusterId']}")
                await node.start()
                self.nodes.append(node)
                await node.register_member(member(name, empty=True))

    async def lead(self, partition: int, ordinal: int = 0) -> PartitionState:
        """A replica claims its partition."""
        node = self.nodes[0]
        seen = await self.state(partition)
        chosen = next(r for r in seen.value.in_sync if r.pod == f"c-p{partition}-{ordinal}")
        led = replace(
            seen.value,
            epoch=seen.value.epoch + 1,
            leader=RunId(chosen, f"run-{chosen.pod}"),
            serial=seen.value.serial + 1,
        )
        await node.compare_and_set_partition(partition, seen.version, led)
        return led

    async def state(self, partition: int) -> Versioned[PartitionState]:
        async with asyncio.timeout(10):
            async for seen in self.nodes[0].watch_partition(partition):
                if seen is not None:
                    return seen
        raise AssertionError("unreachable")

    async def make(self) -> None:
        """From nothing to serving; an operator must be at work."""
        await self.start_nodes()
        for partition in range(2):
            await self.lead(partition)
        await self.kube.until(lambda: self.condition("Available") == "True")

    async def some_rounds(self) -> None:
        """Time for the operator to do all that it would do."""
        seen = len(self.kube.calls)
        await self.kube.until(lambda: len(self.kube.calls) > seen + 100)

    async def end_nodes(self) -> None:
        for node in self.nodes:
            await node.close()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    made.ask()
    yield made
    await made.end_nodes()


def owned(world: World) -> dict[tuple[str, str], str]:
    kinds = ("StatefulSet", "Deployment", "Service", "PodDisruptionBudget")
    return {(k, n): b["metadata"]["resourceVersion"] for (k, _, n), b in world.kube.objects.items() if k in kinds}


async def test_from_a_manifest_to_a_cluster_that_serves(world: World) -> None:
    async with world.operator():
        await world.make()
        await world.kube.until(lambda: world.kube.of("Pod")["c-p1-0"]["metadata"]["labels"].get(LABEL_ROLE) == "leader")
        await world.kube.until(lambda: {e["reason"] for e in world.kube.of("Event").values()} >= {"Born", "Available"})

    assert world.status["phase"] == "Ready"
    assert world.status["readyPartitions"] == "2/2"
    identity = await world.nodes[0].read_identity()
    assert identity is not None
    assert identity.cluster_id == world.status["clusterId"]


async def test_an_operator_that_starts_again_changes_nothing(world: World) -> None:
    async with world.operator():
        await world.make()
        await world.some_rounds()
    before, status = owned(world), world.status
    events = len(world.kube.of("Event"))

    async with world.operator():
        await world.some_rounds()

    assert owned(world) == before
    assert world.status == status
    assert len(world.kube.of("Event")) == events


class Cut(BaseException):
    """The operator's end in the middle of something."""


@pytest.mark.parametrize("calls", [*range(1, 40, 3), 40, 50, 60])
async def test_cut_off_after_any_call_the_next_operator_finishes_the_same_cluster(world: World, calls: int) -> None:
    left = calls

    def cut(method: str, path: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Cut

    world.kube.before_call = cut
    worker = world.worker()
    first = asyncio.create_task(worker.run())
    with pytest.raises(Cut):
        await asyncio.wait_for(first, 10)
    named = world.status.get("clusterId")
    world.kube.before_call = lambda method, path: None

    async with world.operator():
        await world.make()

    assert named in (None, world.status["clusterId"])
    assert list(world.stores) == [world.status["clusterId"]]
    assert len(owned(world)) == 4 + 2 * 3 + 3


async def test_an_api_server_that_fails_now_and_then_only_delays(world: World) -> None:
    luck = Random(7)

    def fail(method: str, path: str) -> None:
        if luck.random() < 0.07:
            raise KubeError(500, f"{method} {path}: etcd has no leader")

    world.kube.before_call = fail
    async with world.operator():
        await world.make()

    assert world.condition("Available") == "True"


async def test_the_word_of_death_does_not_wait_for_a_round(world: World) -> None:
    async with world.operator():
        await world.make()
    slow = Pace(resync=60, gap=60)
    async with world.operator(slow) as worker:
        await world.kube.until(lambda: worker._link.view.complete and worker._link.view.members)
        pod = world.kube.of("Pod")["c-p0-0"]
        ended = {"terminated": {"message": "run-c-p0-0", "containerID": "containerd://7", "exitCode": 137}}
        pod["status"]["containerStatuses"][0]["state"] = ended
        worker.pod_seen(pod, gone=False)
        deaths = await first(world, lambda deaths: "c-p0-0" in deaths)

    assert (deaths["c-p0-0"].run, deaths["c-p0-0"].container_id) == ("run-c-p0-0", "containerd://7")
    assert deaths["c-p0-0"].epoch == 1


async def first(world: World, holds: Callable[[Any], bool]) -> Any:
    async with asyncio.timeout(10):
        async for deaths in world.nodes[0].watch_deaths():
            if holds(deaths):
                return deaths
    raise AssertionError("unreachable")


async def test_a_new_leader_gets_the_label_without_waiting_for_the_timer(world: World) -> None:
    async with world.operator():
        await world.make()
    async with world.operator(Pace(resync=60, gap=0)):
        await world.kube.until(lambda: world.kube.of("Pod")["c-p0-0"]["metadata"]["labels"].get(LABEL_ROLE) == "leader")
        await world.lead(0, ordinal=1)
        await world.kube.until(lambda: world.kube.of("Pod")["c-p0-1"]["metadata"]["labels"].get(LABEL_ROLE) == "leader")


async def test_a_deleted_kvcluster_takes_everything_with_it_and_its_worker_ends(world: World) -> None:
    async with world.operator():
        await world.make()
    worker = world.worker()
    task = asyncio.create_task(worker.run())
    world.kube.remove("KVCluster", "c")
    await world.kube.until(lambda: not world.kube.of("StatefulSet").keys() & {"c-p0", "c-p1"})
    for name in list(world.kube.of("Pod")):
        world.kube.remove("Pod", name)
    await asyncio.wait_for(task, 10)

    assert owned(world) == {}
    assert not world.kube.of("KVCluster")


async def test_two_kvclusters_of_one_namespace_do_not_meet(world: World) -> None:
    world.kube.put("KVCluster", "d", {"metadata": {}, "spec": {"partitions": 1}})
    tools = Tools(world.kube, world.open, lambda: datetime.now(UTC), Metrics(), "kvcluster:dev", pace=QUICK)
    other = asyncio.create_task(Worker("ns", "d", tools).run())
    async with world.operator():
        await world.kube.until(lambda: len(owned(world)) == (4 + 2 * 3 + 3) + (4 + 3 + 3))
        world.kube.remove("KVCluster", "d")
        await asyncio.wait_for(other, 10)

    assert len(owned(world)) == 4 + 2 * 3 + 3
    assert all(name.startswith("c") for _, name in owned(world))


async def test_a_strangers_service_is_left_as_it_is(world: World) -> None:
    stranger = world.kube.put("Service", "c", {"metadata": {}, "spec": {"selector": {"app": "shop"}}})
    async with world.operator():
        await world.kube.until(lambda: world.condition("Degraded") == "True")

    assert world.kube.of("Service") == {"c": stranger}
    assert world.degraded() == "NameTaken"


async def test_what_was_made_anew_by_someone_else_meanwhile_is_not_touched(world: World) -> None:
    async with world.operator():
        await world.make()
    mine = world.kube.of("Service")["c"]
    world.kube.remove("Service", "c")
    stranger = world.kube.put("Service", "c", {"metadata": {"labels": {"app": "shop"}}, "spec": {}})
    applier = Applier(world.kube, lambda: None, lambda: datetime.now(UTC))
    stale = Apply(ObjectKey("Service", "c"), mine["metadata"]["uid"], "digest", mine)
    with pytest.raises(KubeError):
        await applier.carry_out(view_cluster(world.body), stale)

    assert world.kube.of("Service")["c"] == stranger


async def test_with_coordination_away_the_status_says_so_and_the_rows_stay(world: World) -> None:
    async with world.operator():
        await world.make()
        rows = world.status["partitions"]
        store = world.stores[world.status["clusterId"]]
        store.set_away(True)
        await world.kube.until(lambda: world.condition("Degraded") == "True")

    assert world.status["partitions"] == rows
    assert world.condition("Available") == "True"


async def test_lost_coordination_data_is_named_for_as_long_as_it_is_lost(world: World) -> None:
    """What the watches saw before is not taken for what is there: the word does not come and go."""
    async with world.operator():
        await world.make()
        store = world.stores[world.status["clusterId"]]
        store.set_away(True)
        await world.kube.until(lambda: world.degraded() == "ZooKeeperUnavailable")
        store.put_back({})
        store.set_away(False)
        await world.kube.until(lambda: world.degraded() == "CoordinationDataLost")
        changed = world.body["metadata"]["resourceVersion"]
        await world.some_rounds()

    assert world.degraded() == "CoordinationDataLost"
    assert world.body["metadata"]["resourceVersion"] == changed
    assert not store.cells()
