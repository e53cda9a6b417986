import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter

from kvcommon.errors import KVClusterError
from kvcommon.http import HttpServer


class Process:
    """Something to probe."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.registry = CollectorRegistry()

    def server(self, port: int = 0) -> HttpServer:
        return HttpServer(
            ready=lambda: self.reason,
            status=lambda: {"role": "leader", "epoch": 3},
            registry=self.registry,
            host="127.0.0.1",
            port=port,
        )


async def get(server: HttpServer, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{server.port}{path}") as answer:
        return answer.status, await answer.text()


async def test_readiness_is_ok_or_503_with_the_reason() -> None:
    process = Process()
    async with process.server() as server:
        assert await get(server, "/readyz") == (200, "ok\n")
        process.reason = "catching up: 100 records behind"
        assert await get(server, "/readyz") == (503, "catching up: 100 records behind\n")
        assert await get(server, "/livez") == (200, "ok\n")


async def test_metrics_are_those_of_the_registry() -> None:
    process = Process()
    Counter("kv_operations", "Operations.", registry=process.registry).inc(3)
    async with process.server() as server:
        status, text = await get(server, "/metrics")
    assert status == 200
    assert "kv_operations_total 3.0" in text


async def test_status_is_json() -> None:
    async with Process().server() as server:
        assert await get(server, "/status") == (200, '{"role": "leader", "epoch": 3}')


async def test_a_taken_port_is_an_error_that_names_it() -> None:
    async with Process().server() as server:
        with pytest.raises(KVClusterError, match=f"127.0.0.1:{server.port}"):
            await Process().server(server.port).start()


async def test_closing_twice_does_nothing() -> None:
    server = await Process().server().start()
    await server.close()
    await server.close()
