"""The plain HTTP side of a process, on port 7480: /livez, /readyz, /metrics and /status.

What it answers comes from callbacks, so that it knows nothing of nodes or routers. aiohttp is imported only here.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Self

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from kvcommon.errors import KVClusterError
from kvcommon.numbers import HTTP_PORT

METRICS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Check = Callable[[], str | None]
"""None: all is well; otherwise the reason why not, for a person."""


def well() -> str | None:
    """The check of something that is well as long as it can answer."""
    return None


class HttpServer:
    """Serves probes, metrics and status until closed.

    `ready` and `live` return None or the reason for a 503. `status` returns a JSON object. Answers are made on the event
    loop, so an answer to /livez says that the loop turns.
    """

    def __init__(
        self,
        *,
        ready: Check,
        status: Callable[[], Mapping[str, object]],
        registry: CollectorRegistry,
        live: Check = well,
        host: str = "0.0.0.0",  # noqa: S104 - the kubelet asks at the pod's own address
        port: int = HTTP_PORT,
    ) -> None:
        """Port 0 takes a free one; `port` tells which after `start`."""
        self._ready, self._live, self._status, self._registry = ready, live, status, registry
        self._host, self._port = host, port
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        """The port served, the true one after `start`."""
        return self._port

    async def start(self) -> Self:
        """Begin to serve.

        Raises:
            KVClusterError: the address can't be bound.

        """
        runner = web.AppRunner(self._application(), access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, self._host, self._port)
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            raise KVClusterError(
                f"can't serve HTTP on {self._host}:{self._port}: {error.strerror or error}; "
                "set another --http-port, or end what holds this one"
            ) from error
        self._runner = runner
        self._port = int(runner.addresses[0][1])
        return self

    async def close(self) -> None:
        """Stop serving; calling it again does nothing."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/livez", _probe(self._live))
        application.router.add_get("/readyz", _probe(self._ready))
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/status", self._state)
        return application

    async def _metrics(self, _request: web.Request) -> web.Response:
        body = generate_latest(self._registry)
        return web.Response(body=body, headers={"Content-Type": METRICS_CONTENT_TYPE})

    async def _state(self, _request: web.Request) -> web.Response:
        return web.json_response(dict(self._status()))


def _probe(check: Check) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_request: web.Request) -> web.Response:
        reason = check()
        if reason is None:
            return web.Response(text="ok\n")
        return web.Response(status=503, text=f"{reason}\n")

    return answer
