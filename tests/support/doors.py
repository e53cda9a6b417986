"""The asyncio client as a door of the load generator: its exceptions become outcomes."""

from typing import assert_never

from kvclient import AsyncClient, errors
from tests.support.history import FAILED, UNKNOWN, Kind, Outcome, Result
from tests.support.workload import Answer


class ClientDoor:
    """One kvclient client, so one client of the history."""

    def __init__(self, client: AsyncClient) -> None:
        """The client is closed with the door."""
        self._client = client

    async def call(self, kind: Kind, key: bytes, value: bytes | None, expected_version: int | None) -> Answer:
        """Do it. Refusals that the client is sure of are FAILED; all that it is not sure of is UNKNOWN."""
        try:
            return Answer(await self._do(kind, key, value or b"", expected_version))
        except errors.NotFoundError:
            return Answer(Outcome(Result.NOT_FOUND))
        except errors.AlreadyExistsError as error:
            return Answer(Outcome(Result.ALREADY_EXISTS, error.found_version))
        except errors.VersionMismatchError as error:
            return Answer(Outcome(Result.VERSION_MISMATCH, error.found_version))
        except (errors.UnavailableError, errors.InvalidArgumentError) as error:
            return Answer(FAILED, f"{type(error).__name__}: {error}")
        except errors.KVClusterError as error:
            return Answer(UNKNOWN, f"{type(error).__name__}: {error}")

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
