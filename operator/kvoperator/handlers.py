"""kopf, as far as the operator uses it: watches that wake workers. Nothing is decided or remembered here.

kopf is imported only here.
"""

import asyncio
import dataclasses
import logging
import ssl
from collections.abc import Callable
from typing import Any

import kopf

from kvoperator.kube import accept_as_kubectl_does
from kvoperator.manager import Manager
from kvoperator.names import GROUP, LABEL_CLUSTER, PLURAL, VERSION

WATCHED = (("apps", "v1", "statefulsets"), ("apps", "v1", "deployments"))


def quiet() -> None:
    """Kopf tells of every call of a handler; only what went wrong is of interest."""
    logging.getLogger("kopf").setLevel(logging.WARNING)


class Connection(kopf.ConnectionInfo):
    """kopf's way to the API server, with certificates verified as everything else here does."""

    def as_ssl_context(self) -> ssl.SSLContext:
        context = super().as_ssl_context()
        accept_as_kubectl_does(context)
        return context

    @classmethod
    def like(cls, info: kopf.ConnectionInfo) -> "Connection":
        """The same connection."""
        return cls(**{f.name: getattr(info, f.name) for f in dataclasses.fields(info)})


def settings() -> kopf.OperatorSettings:
    """Kopf's settings: our names, explicit time-outs, and no Events or annotations of its own."""
    made = kopf.OperatorSettings()
    made.persistence.finalizer = f"{GROUP}/kopf"
    made.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=GROUP)
    made.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=GROUP)
    made.posting.enabled = False
    made.peering.standalone = True
    made.scanning.disabled = True  # namespaces and CRDs need no rights, then; main.py waits for the CRD itself
    made.networking.request_timeout = 30
    made.networking.connect_timeout = 5
    made.watching.connect_timeout = 5
    made.watching.server_timeout = 300
    made.watching.client_timeout = 330
    made.watching.inactivity_timeout = 70  # a watch that was lost silently is opened anew
    made.watching.reconnect_backoff = 0.1
    made.queueing.worker_limit = 64
    made.queueing.exit_timeout = 0.5
    made.queueing.idle_timeout = 1
    made.queueing.error_delays = (1, 1, 2, 3, 5, 8, 13)
    made.process.ultimate_exiting_timeout = 10
    for resource in ("pods", "statefulsets", "deployments"):
        made.watching.label_selectors[resource] = LABEL_CLUSTER
    return made


def registry(manager: Manager) -> kopf.OperatorRegistry:
    """Handlers that wake the workers."""
    made = kopf.OperatorRegistry()

    @kopf.on.login(registry=made)
    def login(**arguments: Any) -> kopf.ConnectionInfo | None:
        info = kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)
        return Connection.like(info) if info else None

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=made)
    async def cluster(namespace: str | None, name: str, **_: Any) -> None:
        manager.cluster_seen(namespace or "", name)

    @kopf.on.event("", "v1", "pods", labels={LABEL_CLUSTER: kopf.PRESENT}, registry=made)
    async def pod(event: Any, **_: Any) -> None:
        manager.pod_seen(event["object"], gone=event["type"] == "DELETED")

    for group, version, plural in WATCHED:

        @kopf.on.event(group, version, plural, labels={LABEL_CLUSTER: kopf.PRESENT}, registry=made, id=plural)
        async def owned(event: Any, **_: Any) -> None:
            manager.object_seen(event["object"])

    return made


async def watch(manager: Manager, namespace: str, stop: asyncio.Event, ready: Callable[[], None]) -> None:
    """Watch until `stop`; of all namespaces when `namespace` is empty. `ready` is called once kopf runs."""
    started = asyncio.Event()

    async def tell() -> None:
        await started.wait()
        ready()

    teller = asyncio.create_task(tell(), name="kopf ready")
    try:
        await kopf.operator(
            registry=registry(manager),
            settings=settings(),
            standalone=True,
            clusterwide=not namespace,
            namespaces=[namespace] if namespace else [],
            stop_flag=stop,
            ready_flag=started,
        )
    finally:
        teller.cancel()
