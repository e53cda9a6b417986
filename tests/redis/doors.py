"""redis-py as doors of the load generator: its exceptions become outcomes."""

from typing import Any, assert_never

from redis import exceptions

from tests.support.history import FAILED, UNKNOWN, Kind, Outcome, Result
from tests.support.workload import Answer

# What a server says when it has certainly not done a command.
_NOT_DONE = (exceptions.ClusterDownError, exceptions.TryAgainError, exceptions.MovedError)


class RedisDoor:
    """An asyncio client of redis-py, plain or of a cluster, that does not repeat commands by itself.

    Redis has no versions: a Put is SET, a Create SET NX, an Update SET XX, a Delete DEL.
    """

    def __init__(self, client: Any) -> None:
        """The client is closed with the door."""
        self._client = client

    async def call(self, kind: Kind, key: bytes, value: bytes | None, expected_version: int | None) -> Answer:
        assert expected_version is None, "Redis has no versions"
        try:
            return Answer(await self._do(kind, key, value))
        except _NOT_DONE as error:
            return Answer(FAILED, self._reason(error))
        except (exceptions.RedisError, OSError) as error:
            return Answer(UNKNOWN, self._reason(error))

    async def close(self) -> None:
        await self._client.aclose()

    def _reason(self, error: Exception) -> str:
        return f"{type(self._client).__name__}: {type(error).__name__}: {error}"

    async def _do(self, kind: Kind, key: bytes, value: bytes | None) -> Outcome:
        match kind:
            case Kind.GET:
                found = await self._client.get(key)
                return Outcome(Result.NOT_FOUND) if found is None else Outcome(Result.OK, value=found)
            case Kind.PUT:
                await self._client.set(key, value)
                return Outcome(Result.OK)
            case Kind.CREATE:
                done = await self._client.set(key, value, nx=True)
                return Outcome(Result.OK if done else Result.ALREADY_EXISTS)
            case Kind.UPDATE:
                done = await self._client.set(key, value, xx=True)
                return Outcome(Result.OK if done else Result.NOT_FOUND)
            case Kind.DELETE:
                return Outcome(Result.OK if await self._client.delete(key) else Result.NOT_FOUND)
            case _:
                assert_never(kind)
