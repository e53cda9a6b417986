"""redis-py as a door of the load generator: no versions, no retries of its own, errors become outcomes."""

from collections.abc import Sequence
from typing import Protocol, assert_never

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tests.support.history import FAILED, UNKNOWN, Kind, Outcome, Result
from tests.support.workload import Answer

TIMEOUT = 5.0  # seconds
REFUSALS = (exceptions.ClusterDownError, exceptions.TryAgainError, exceptions.MovedError)
"""Nothing was done."""


class Commands(Protocol):
    """What redis-py's plain client and its cluster client have in common, as far as it is used here."""

    async def execute_command(self, *words: str | bytes) -> bytes | int | None: ...
    async def aclose(self) -> None: ...


def cluster_client(addresses: Sequence[str]) -> RedisCluster:
    """The cluster client, which finds the map at one of `addresses` (host:port). A command is sent once, never again."""
    places = [address.rsplit(":", 1) for address in addresses]
    return RedisCluster(
        startup_nodes=[ClusterNode(host, int(port)) for host, port in places],
        retry=Retry(NoBackoff(), 0),
        socket_timeout=TIMEOUT,
        socket_connect_timeout=1.0,
    )


def plain_client(address: str) -> Redis:
    """The client that knows no cluster, at host:port. A command is sent once, never again."""
    host, port = address.rsplit(":", 1)
    return Redis(
        host=host,
        port=int(port),
        retry=Retry(NoBackoff(), 0),
        socket_timeout=TIMEOUT,
        socket_connect_timeout=1.0,
    )


class RedisDoor:
    """One redis-py client, so one client of the history. Redis shows no versions, so conditions on them can't be asked for."""

    def __init__(self, client: Commands) -> None:
        """The client is closed with the door."""
        self._client = client

    async def call(self, kind: Kind, key: bytes, value: bytes | None, expected_version: int | None) -> Answer:
        """Do it. What was certainly refused is FAILED; whatever ends without an answer is UNKNOWN."""
        assert expected_version is None, "Redis knows no versions"
        try:
            return Answer(await self._do(kind, key, value or b""))
        except REFUSALS as error:
            return Answer(FAILED, f"{type(error).__name__}: {error}")
        except (exceptions.RedisError, exceptions.RedisClusterException, AttributeError) as error:
            # RedisClusterException, no RedisError: a map in which a slot has no leader yet, or no node that tells one.
            # AttributeError: redis-py's, where one task of a client closes a connection that another is writing to.
            return Answer(UNKNOWN, f"{type(error).__name__}: {error}")

    async def close(self) -> None:
        await self._client.aclose()

    async def _do(self, kind: Kind, key: bytes, value: bytes) -> Outcome:
        match kind:
            case Kind.GET:
                found = await self._client.execute_command("GET", key)
                return Outcome(Result.NOT_FOUND) if found is None else Outcome(Result.OK, value=bytes_of(found))
            case Kind.PUT:
                await self._client.execute_command("SET", key, value)
                return Outcome(Result.OK)
            case Kind.CREATE:
                done = await self._client.execute_command("SET", key, value, "NX")
                return Outcome(Result.OK if done else Result.ALREADY_EXISTS)
            case Kind.UPDATE:
                done = await self._client.execute_command("SET", key, value, "XX")
                return Outcome(Result.OK if done else Result.NOT_FOUND)
            case Kind.DELETE:
                done = await self._client.execute_command("DEL", key)
                return Outcome(Result.OK if done else Result.NOT_FOUND)
            case _:
                assert_never(kind)


def bytes_of(found: bytes | int) -> bytes:
    """A bulk string's bytes."""
    assert isinstance(found, bytes), f"GET answered {found!r}"
    return found
