"""Redis as the peer: one server that syncs its append-only file at every write, and Redis's own load generator."""

import asyncio
import csv
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError

from bench.measure import Sample
from kvlocal.ports import free_ports

START_SECONDS = 20.0
MAX_CONNECTIONS = 1000  # of redis-py; its own default is below 128
_FEW = 300  # requests per connection of the first run, which only finds out how long a run must be


def find_redis() -> str | None:
    """redis-server, when it and redis-benchmark are on PATH."""
    return shutil.which("redis-server") if shutil.which("redis-benchmark") else None


@asynccontextmanager
async def redis_server(folder: Path) -> AsyncIterator[int]:
    """A server with its data in `folder`; its port."""
    program = find_redis()
    assert program is not None
    folder.mkdir(parents=True, exist_ok=True)
    port = free_ports(1)[0]
    arguments = (
        "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--logfile", str(folder / "log"),
        "--appendonly", "yes", "--appendfsync", "always", "--save", "",
    )  # fmt: skip
    process = await asyncio.create_subprocess_exec(program, *arguments)
    try:
        await _answers(port)
        yield port
    finally:
        process.terminate()
        await process.wait()


async def _answers(port: int) -> None:
    async with asyncio.timeout(START_SECONDS), redis.asyncio.Redis(port=port) as client:
        while True:
            try:
                await client.ping()
            except RedisConnectionError:
                await asyncio.sleep(0.05)
            else:
                return


class RedisPy:
    """redis-py's asyncio client, with as many connections as tasks ask at once."""

    def __init__(self, port: int) -> None:
        self._client = redis.asyncio.Redis(port=port, max_connections=MAX_CONNECTIONS)

    async def put(self, key: bytes, value: bytes) -> None:
        await self._client.set(key, value)

    async def get(self, key: bytes) -> bytes | str:
        """Raises LookupError when the key is not there."""
        value = await self._client.get(key)
        if value is None:
            raise LookupError(f"Redis does not have {key!r}")
        return value

    async def put_many(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        await self._client.mset(dict(pairs))

    async def close(self) -> None:
        await self._client.aclose()


async def redis_benchmark(
    port: int, command: str, connections: int, seconds: float, *, value_bytes: int, keys: int, pipeline: int = 1
) -> Sample:
    """Redis's own load generator for about so many seconds: `set` or `get` of random keys."""
    rate = (await _run(port, command, connections, _FEW * connections, value_bytes, keys, pipeline)).value
    return await _run(port, command, connections, max(1000, int(rate * seconds)), value_bytes, keys, pipeline)


async def _run(  # noqa: PLR0917 - the program's flags, in one place
    port: int, command: str, connections: int, requests: int, value_bytes: int, keys: int, pipeline: int
) -> Sample:
    arguments = (
        "-p", port, "-t", command, "-c", connections, "-n", requests, "-d", value_bytes, "-r", keys, "-P", pipeline,
        "--csv",
    )  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        "redis-benchmark", *map(str, arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    out, _ = await process.communicate()
    row = list(csv.DictReader(out.decode().splitlines()))[-1]
    p50, p99 = (float(row[name]) / 1e3 for name in ("p50_latency_ms", "p99_latency_ms"))
    return Sample(float(row["rps"]), p50, p99)
