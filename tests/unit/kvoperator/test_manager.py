"""One worker for each KVCluster that there is, whatever the moment at which it is seen, goes or comes back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import pytest

from kvcoord.memory import MemoryStore
from kvoperator.kube import Json
from kvoperator.manager import Manager
from kvoperator.metrics import Metrics
from kvoperator.names import FINALIZER, KIND, LABEL_CLUSTER
from kvoperator.worker import Pace, Tools
from tests.unit.kvoperator.api import MemoryKube

POD = {"metadata": {"name": "c-p0-0", "namespace": "ns", "uid": "1", "labels": {LABEL_CLUSTER: "c"}}}
QUICK = Pace(resync=60.0, gap=0.0, backoff=0.01)


class AnsweringKube(MemoryKube):
    """`once_gone` is called, once, when a KVCluster was found to be gone, before the worker is told so."""

    def __init__(self) -> None:
        super().__init__()
        self.once_gone: Callable[[], None] = lambda: None

    async def get(self, kind: str, namespace: str, name: str) -> Json | None:
        found = await super().get(kind, namespace, name)
        if kind == KIND and found is None:
            call, self.once_gone = self.once_gone, lambda: None
            call()
        return found


@pytest.fixture
def kube() -> AnsweringKube:
    return AnsweringKube()


@pytest.fixture
async def manager(kube: AnsweringKube) -> AsyncIterator[Manager]:
    store = MemoryStore()
    made = Manager(Tools(kube, lambda _: store.session(), lambda: datetime.now(UTC), Metrics(), "kv:1", pace=QUICK))
    yield made
    await made.close()


def apply(kube: MemoryKube) -> None:
    """`kubectl apply` of the KVCluster `ns/c`."""
    kube.put(KIND, "c", {"metadata": {}, "spec": {"partitions": 1}})


def looked_after(kube: MemoryKube) -> bool:
    """Whether a worker has come so far as to put its finalizer on the KVCluster."""
    return FINALIZER in kube.of(KIND).get("c", {"metadata": {}})["metadata"].get("finalizers", ())


def workers() -> list[asyncio.Task[None]]:
    """The workers at work."""
    return [task for task in asyncio.all_tasks() if task.get_name() == "worker ns/c"]


async def no_workers() -> None:
    """Until every worker has ended, and whoever asked to be told of it was told."""
    async with asyncio.timeout(10):
        while tasks := workers():
            await asyncio.wait(tasks)
    await asyncio.sleep(0)


async def test_a_kvcluster_that_is_seen_gets_a_worker(kube: AnsweringKube, manager: Manager) -> None:
    """The first sign of a KVCluster starts its worker; further signs start no other."""
    apply(kube)
    for _ in range(3):
        manager.cluster_seen("ns", "c")
    await kube.until(lambda: looked_after(kube))

    assert len(workers()) == 1


async def test_the_worker_of_a_kvcluster_that_is_gone_ends(kube: AnsweringKube, manager: Manager) -> None:
    """The watch's word of a deletion is answered by one look, which finds nothing, and that is the end."""
    manager.cluster_seen("ns", "c")
    manager.cluster_seen("ns", "c")
    await no_workers()

    assert len(kube.calls) <= 2


async def test_one_made_anew_while_its_predecessors_worker_ends_gets_a_worker(
    kube: AnsweringKube, manager: Manager
) -> None:
    """The worker has read that its KVCluster is gone; before it has ended, one of the same name is made and seen."""

    def made_anew() -> None:
        apply(kube)
        manager.cluster_seen("ns", "c")

    kube.once_gone = made_anew
    manager.cluster_seen("ns", "c")
    await kube.until(lambda: looked_after(kube))

    assert len(workers()) == 1


async def test_one_seen_between_a_workers_end_and_the_word_of_it_gets_one_worker(
    kube: AnsweringKube, manager: Manager
) -> None:
    """The task has ended, the manager was not told yet: the KVCluster and a pod of it are seen just then."""
    asked: list[None] = []

    def seen() -> None:
        (ending,) = workers()
        loop = asyncio.get_running_loop()

        def poll() -> None:
            if not ending.done():
                loop.call_soon(poll)
                return
            apply(kube)
            manager.cluster_seen("ns", "c")
            manager.pod_seen(POD, gone=False)
            asked.append(None)

        poll()

    kube.once_gone = seen
    manager.cluster_seen("ns", "c")
    await kube.until(lambda: looked_after(kube))

    assert asked, "the moment was not met"
    assert len(workers()) == 1


async def test_after_its_end_a_manager_starts_nothing(kube: AnsweringKube, manager: Manager) -> None:
    """The watches go on a little longer than the Lease is held; what they say is another operator's business."""
    apply(kube)
    manager.cluster_seen("ns", "c")
    await kube.until(lambda: looked_after(kube))
    await manager.close()
    manager.cluster_seen("ns", "c")

    assert not workers()
