"""All workers: one for each KVCluster that there is."""

import asyncio
import contextlib

import structlog

from kvoperator.kube import Json
from kvoperator.names import LABEL_CLUSTER
from kvoperator.worker import Tools, Worker

log = structlog.get_logger()


class Manager:
    """Starts a worker for a KVCluster when it is seen; the worker ends by itself when the KVCluster is gone."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._workers: dict[tuple[str, str], tuple[Worker, asyncio.Task[None]]] = {}
        self._closed = False

    def cluster_seen(self, namespace: str, name: str) -> None:
        """A KVCluster, or one that is gone: its worker finds out."""
        found = self._workers.get((namespace, name))
        if found is None or found[1].done():
            self._start(namespace, name)
        else:
            found[0].wake()

    def pod_seen(self, body: Json, *, gone: bool) -> None:
        """A pod of ours, as the watch has it now."""
        worker = self._worker_of(body)
        if worker is not None:
            worker.pod_seen(body, gone=gone)

    def object_seen(self, body: Json) -> None:
        """Another object of ours."""
        worker = self._worker_of(body)
        if worker is not None:
            worker.wake()

    async def close(self) -> None:
        """End all workers, and start no more; what they made goes on without them."""
        self._closed = True
        tasks = [task for _, task in self._workers.values()]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._workers.clear()

    def _worker_of(self, body: Json) -> Worker | None:
        meta = body["metadata"]
        found = self._workers.get((meta["namespace"], meta.get("labels", {}).get(LABEL_CLUSTER, "")))
        return found[0] if found else None

    def _start(self, namespace: str, name: str) -> None:
        if self._closed:
            return  # watches may go on longer than the Lease is held
        worker = Worker(namespace, name, self._tools)
        task = asyncio.create_task(worker.run(), name=f"worker {namespace}/{name}")
        self._workers[namespace, name] = (worker, task)
        self._tools.metrics.clusters.set(len(self._workers))
        task.add_done_callback(lambda done: self._ended(namespace, name, worker, done))

    def _ended(self, namespace: str, name: str, worker: Worker, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("worker ended by an error; the next sign of its KVCluster starts it anew", exc_info=error)
        if self._workers.get((namespace, name)) != (worker, task):
            return  # another is at work already
        del self._workers[namespace, name]
        self._tools.metrics.clusters.set(len(self._workers))
        if worker.woken and error is None and not task.cancelled():
            self._start(namespace, name)  # woken as it ended: its KVCluster may have been made anew
