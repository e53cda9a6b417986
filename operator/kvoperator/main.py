"""The `kvoperator` command: waits for the CRD and for the Lease, then looks after KVClusters until it is told to stop."""

import asyncio
import os
import socket
import sys
import uuid
from collections.abc import Awaitable
from datetime import UTC, datetime
from pathlib import Path

import structlog
from pydantic import Field

from kvcommon.clock import SystemClock
from kvcommon.errors import ConfigurationError, KVClusterError
from kvcommon.http import HttpServer
from kvcommon.logging import configure_logging
from kvcommon.numbers import HTTP_PORT
from kvcommon.server import STOP_SIGNALS, run
from kvcommon.settings import Settings, exit_configuration, load_settings
from kvcoord.open import open_coordination
from kvoperator import handlers
from kvoperator.kube import Kube, KubeError
from kvoperator.lease import LeaseHolder
from kvoperator.manager import Manager
from kvoperator.metrics import Metrics
from kvoperator.worker import Tools

log = structlog.get_logger()
SERVICE_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
CRD_POLL = 2.0  # seconds
KOPF_END = 1.0  # seconds that kopf is given for an orderly end; it has nothing to lose


class OperatorSettings(Settings):
    """The operator: makes and keeps what KVClusters ask for. Kubernetes is reached by service account or KUBECONFIG."""

    namespace: str = Field("", description="look after KVClusters of this namespace only; all when empty")
    http_port: int = Field(HTTP_PORT, ge=0, le=65535, description="probes and metrics; 0 takes a free one")
    default_image: str = Field("kvcluster:dev", description="image of nodes and routers whose spec names none")
    pod: str = Field("", description="this operator's name, as holder of the Lease; the host's when empty")
    pod_namespace: str = Field("", description="where the Lease is; the service account's when empty")
    zookeeper_by_address: bool = Field(
        False, description="reach ZooKeeper by its Service's address instead of by name, for an operator outside"
    )


class Health:
    """What probes and /status answer."""

    def __init__(self) -> None:
        self.stage = "starting"
        self.problem: str | None = "starting"

    def at(self, stage: str, problem: str | None = None) -> None:
        """Where the operator has got to; ready unless there is a problem."""
        if (stage, problem) != (self.stage, self.problem):
            log.info("operator", stage=stage, problem=problem)
        self.stage, self.problem = stage, problem


def main() -> None:
    """Entry point."""
    settings = load_settings(OperatorSettings)
    try:
        configure_logging("operator")
        handlers.quiet()
        code = run(lambda stop: serve(settings, stop))
    except ConfigurationError as error:
        exit_configuration(error)
    except KVClusterError as error:
        sys.stderr.write(f"{error}\n")
        code = 1
    raise SystemExit(code)


async def serve(settings: OperatorSettings, stop: asyncio.Event) -> int:
    """Run until `stop`; the process's exit code. 1 when the Lease was lost: a new process begins from nothing."""
    kube, metrics, health = Kube.connect(), Metrics(), Health()
    http = HttpServer(
        ready=lambda: health.problem,
        status=lambda: {"stage": health.stage},
        registry=metrics.registry,
        port=settings.http_port,
    )
    async with http:
        log.info("serving", http_port=http.port)
        try:
            if not await _until(stop, _crd(kube, health)):
                return 0
            lease = _lease(settings, kube)
            health.at("waiting for the lease")
            if not await _until(stop, lease.acquire()):
                return 0
            return await _active(settings, kube, (metrics, health), lease, stop)
        finally:
            kube.close()


async def _active(
    settings: OperatorSettings, kube: Kube, told: tuple[Metrics, Health], lease: LeaseHolder, stop: asyncio.Event
) -> int:
    metrics, health = told
    tools = Tools(
        kube=kube,
        opener=open_coordination,
        now=lambda: datetime.now(UTC),
        metrics=metrics,
        default_image=settings.default_image,
        by_address=settings.zookeeper_by_address,
    )
    manager = Manager(tools)
    enough = asyncio.Event()

    def ready() -> None:
        # kopf has put its own signal handlers in place of ours; its end takes seconds, ours should not.
        for number in STOP_SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        health.at("active")

    watching = asyncio.create_task(handlers.watch(manager, settings.namespace, enough, ready), name="watch")
    keeping = asyncio.create_task(lease.keep(), name="lease")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    metrics.active.set(1)
    try:
        await asyncio.wait({watching, keeping, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return 0 if stop.is_set() else 1
    finally:
        health.at("stopping", "stopping")
        metrics.active.set(0)
        await manager.close()
        keeping.cancel()
        stopping.cancel()
        await lease.release()
        enough.set()
        await asyncio.wait({watching}, timeout=KOPF_END)
        if watching.done() and not watching.cancelled() and (error := watching.exception()) is not None:
            log.error("watches ended by an error", exc_info=error)


async def _crd(kube: Kube, health: Health) -> None:
    """Return once the API server knows KVClusters."""
    while True:
        try:
            if await kube.served():
                return
            health.at("waiting for the CRD", "the KVCluster CRD is not there: kubectl apply -f crds/kvclusters.yaml")
        except KubeError as error:
            health.at("waiting for the API server", str(error))
        await asyncio.sleep(CRD_POLL)


async def _until(stop: asyncio.Event, work: Awaitable[None]) -> bool:
    """Whether `work` was done before `stop`."""
    task, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    done, _ = await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
    for other in (task, stopping):
        if other not in done:
            other.cancel()
    if task in done:
        task.result()
        return True
    return False


def _lease(settings: OperatorSettings, kube: Kube) -> LeaseHolder:
    namespace = settings.pod_namespace
    if not namespace and SERVICE_ACCOUNT_NAMESPACE.exists():
        namespace = SERVICE_ACCOUNT_NAMESPACE.read_text().strip()
    identity = f"{settings.pod or socket.gethostname()}_{os.getpid()}_{uuid.uuid4().hex[:8]}"
    return LeaseHolder(kube, namespace or "default", identity, clock=SystemClock(), wall=lambda: datetime.now(UTC))


if __name__ == "__main__":
    main()
