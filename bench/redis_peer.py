"""Redis as the peer: one server that syncs its append-only file at every write, and Redis's own load generator."""

import asyncio
import re
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
_RATE = re.compile(r"throughput summary: ([0-9.]+) requests per second")
_SUMMARY = re.compile(r"avg +min +p50 +p95 +p99 +max *\n([0-9. ]+)")
_SHARE = re.compile(r"^([0-9.]+)% <= ([0-9.]+) milliseconds", re.MULTILINE)
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
        "--precision", 3,
    )  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        "redis-benchmark", *map(str, arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, said = await process.communicate()
    return read_report(out.decode(), said.decode())


def read_report(text: str, said: str = "") -> Sample:
    """What redis-benchmark printed. Its p99.9 is of the first share that it tells above that, 99.902 %.

    Raises RuntimeError with what it `said`, when it gave no figures.
    """
    rate, summary = _RATE.search(text), _SUMMARY.search(text)
    if rate is None or summary is None:
        raise RuntimeError(f"redis-benchmark gave no figures: {(said or text).strip()[-300:] or 'it printed nothing'}")
    _average, _lowest, p50, _p95, p99, _highest = (float(ms) / 1e3 for ms in summary[1].split())
    shares = _SHARE.findall(text.partition("Cumulative")[0])
    p999 = next(float(ms) / 1e3 for percent, ms in shares if float(percent) >= 99.9)
    return Sample(float(rate[1]), p50, p99, p999)
