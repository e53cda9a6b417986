"""The blocking client: the asyncio one on an event loop in a thread of its own."""

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, Self, TypeVar

import grpc

from kvclient.aio import AsyncClient, Mode
from kvclient.engine import Limits
from kvclient.errors import ClientClosedError, KVClusterError
from kvclient.operations import Operation, ReadMode, Record
from kvcommon.numbers import CLIENT_DEADLINE

T = TypeVar("T")
_LATE_EVENTS = 0.05  # seconds


class Client:
    """A cluster, from threads: the calls, errors and guarantees of `AsyncClient`, each blocking until it is done.

    Thread-safe; calls of several threads at the same time are gathered as those of tasks are. Not to be used across a
    fork: connect in the child.
    """

    def __init__(self, client: AsyncClient, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
        """Made by `connect`."""
        self._client = client
        self._loop = loop
        self._thread = thread

    @classmethod
    def connect(
        cls,
        seeds: Sequence[str] | str,
        *,
        mode: Mode = "direct",
        timeout: float = CLIENT_DEADLINE,
        limits: Limits | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> "Client":
        """As `AsyncClient.connect`."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="kvclient", daemon=True)
        thread.start()
        connecting = AsyncClient.connect(seeds, mode=mode, timeout=timeout, limits=limits, credentials=credentials)
        try:
            client = asyncio.run_coroutine_threadsafe(connecting, loop).result()
        except BaseException:
            _end(loop, thread)
            raise
        return cls(client, loop, thread)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all connections and the thread; calls still waiting in other threads fail. May be called again."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result()
        _end(self._loop, self._thread)

    def get(
        self,
        key: bytes,
        *,
        read_mode: ReadMode = ReadMode.LINEARIZABLE,
        max_lag: float | None = None,
        timeout: float | None = None,
    ) -> Record | None:
        """The newest record of a key; None when there is none."""
        return self._run(self._client.get(key, read_mode=read_mode, max_lag=max_lag, timeout=timeout))

    def put(
        self, key: bytes, value: bytes, *, expected_version: int | None = None, timeout: float | None = None
    ) -> int:
        """Write a key, whether it exists or not; returns the new version."""
        return self._run(self._client.put(key, value, expected_version=expected_version, timeout=timeout))

    def create(self, key: bytes, value: bytes, *, timeout: float | None = None) -> int:
        """Write a key that must not exist; returns its version. Raises AlreadyExistsError."""
        return self._run(self._client.create(key, value, timeout=timeout))

    def update(
        self, key: bytes, value: bytes, *, expected_version: int | None = None, timeout: float | None = None
    ) -> int:
        """Write a key that must exist; returns its new version. Raises NotFoundError, VersionMismatchError."""
        return self._run(self._client.update(key, value, expected_version=expected_version, timeout=timeout))

    def delete(self, key: bytes, *, expected_version: int | None = None, timeout: float | None = None) -> int:
        """Remove a key that must exist; returns the deletion's version. Raises NotFoundError, VersionMismatchError."""
        return self._run(self._client.delete(key, expected_version=expected_version, timeout=timeout))

    def batch(
        self,
        operations: Sequence[Operation],
        *,
        read_mode: ReadMode = ReadMode.LINEARIZABLE,
        max_lag: float | None = None,
        timeout: float | None = None,
    ) -> list[Record | KVClusterError]:
        """Do up to 1,000 operations; returns one record or error per operation, in order."""
        return self._run(self._client.batch(operations, read_mode=read_mode, max_lag=max_lag, timeout=timeout))

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            call.close()
            raise ClientClosedError("the client was closed")
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # an interrupted caller wants nothing sent any more
            raise


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    # gRPC's poller, one for all loops of the process, fails when it has a late event for a loop that is closed.
    asyncio.run_coroutine_threadsafe(asyncio.sleep(_LATE_EVENTS), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
