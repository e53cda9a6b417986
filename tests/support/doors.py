"""The asyncio client as a door of the load generator: its exceptions become outcomes."""

from collections.abc import Awaitable
from typing import assert_never

from kvclient import AsyncClient, errors
from tests.support.history import FAILED, UNKNOWN, Kind, Outcome, Result
from tests.support.workload import Answer


async def answer_of(doing: Awaitable[Outcome]) -> Answer:
    """What came of it, as an answer."""
    try:
        return Answer(await doing)
    except errors.KVClusterError as error:
        return refusal_of(error)


def refusal_of(error: errors.KVClusterError) -> Answer:
    """Refusals that the client is sure of are FAILED; all that it is not sure of is UNKNOWN."""
    match error:
        case errors.NotFoundError():
            return Answer(Outcome(Result.NOT_FOUND))
        case errors.AlreadyExistsError():
            return Answer(Outcome(Result.ALREADY_EXISTS, error.found_version))
        case errors.VersionMismatchError():
            return Answer(Outcome(Result.VERSION_MISMATCH, error.found_version))
        case errors.UnavailableError() | errors.InvalidArgumentError():
            return Answer(FAILED, f"{type(error).__name__}: {error}")
    return Answer(UNKNOWN, f"{type(error).__name__}: {error}")


class ClientDoor:
    """One kvclient client, so one client of the history."""

    def __init__(self, client: AsyncClient) -> None:
        """The client is closed with the door."""
        self._client = client

    async def call(self, kind: Kind, key: bytes, value: bytes | None, expected_version: int | None) -> Answer:
        """Do it."""
        return await answer_of(self._do(kind, key, value or b"", expected_version))

    async def turn_to(self, client: AsyncClient) -> None:
        """Go through another client from now on; the one before is closed, and its calls under way end with it."""
        old, self._client = self._client, client
        await old.close()

    async def close(self) -> None:
        await self._client.close()

    async def _do(self, kind: Kind, key: bytes, value: bytes, expected: int | None) -> Outcome:
        match kind:
            case Kind.GET:
                record = await self._client.get(key)
                return Outcome(Result.OK, record.version, record.value) if record else Outcome(Result.NOT_FOUND)
            case Kind.PUT:
                version = await self._client.put(key, value, expected_version=expected)
            case Kind.CREATE:
                version = await self._client.create(key, value)
            case Kind.UPDATE:
                version = await self._client.update(key, value, expected_version=expected)
            case Kind.DELETE:
                version = await self._client.delete(key, expected_version=expected)
            case _:
                assert_never(kind)
        return Outcome(Result.OK, version)
