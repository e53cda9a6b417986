"""The asyncio client."""

import asyncio
import random
from collections.abc import Awaitable, Sequence
from itertools import repeat
from typing import Literal, Self

import grpc

from kvclient.engine import Engine, Limits, partition_parts
from kvclient.errors import ClientClosedError, KVClusterError, UnavailableError, exception_of
from kvclient.grpc_source import GrpcTopologySource
from kvclient.grpc_transport import ChannelFactory, parse_addresses
from kvclient.operations import (
    CREATE,
    DELETE,
    GET,
    LINEARIZABLE,
    PUT,
    UPDATE,
    Operation,
    ReadMode,
    ReadProfile,
    Record,
    check_key,
    check_operations,
    check_value,
    check_version,
    make_tuple,
    read_profile,
)
from kvclient.pipeline_transport import NodeTransport
from kvclient.placement import DirectPlacement, Placement, RouterPlacement
from kvclient.retry import Backoff
from kvclient.transport import TopologySource, Transport
from kvclient.units import Call, Group
from kvcommon.numbers import CLIENT_DEADLINE, GRPC_PORT, MAX_KEY_BYTES, MAX_VALUE_BYTES
from kvcommon.slots import slot_of
from kvproto.pipeline import Columns, Done, OperationTuple, ResultTuple, all_done, keys_of, picked
from kvproto.v1 import kv_pb2

Mode = Literal["direct", "router"]


class AsyncClient:
    """A cluster, from one asyncio application. One client serves any number of tasks, on one event loop.

    Calls that run at the same time are gathered into batches per partition. Every call has a deadline: `timeout`
    seconds, or the client's. Within it refused and unanswered operations are sent again where that is safe. All calls
    raise:

    - InvalidArgumentError: a key, value or option can't be sent;
    - UnavailableError, among them DeadlineExceededError and ResourceExhaustedError: a write was certainly not applied;
    - OutcomeUnknownError: a write may have been applied.

    Reads of one client never go back: none is older than what this client has already read or written.
    """

    def __init__(self, engine: Engine, *, timeout: float = CLIENT_DEADLINE) -> None:
        """For an engine with another transport (the router, the simulation); others use `connect`."""
        self._engine = engine
        self._timeout = timeout

    @classmethod
    async def connect(
        cls,
        seeds: Sequence[str] | str,
        *,
        mode: Mode = "direct",
        timeout: float = CLIENT_DEADLINE,
        limits: Limits | None = None,
        backoff: Backoff | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        rng: random.Random | None = None,
        transport: Transport | None = None,
        source: TopologySource | None = None,
    ) -> "AsyncClient":
        """A client of the cluster that the seeds (host:port of nodes or routers) belong to.

        `direct`: learns the map from any seed and goes straight to the nodes. `router`: sends everything to the seeds,
        which must be routers (or one address in front of them). Raises UnavailableError when no seed has told the map
        within `timeout` seconds.
        """
        addresses = parse_addresses((seeds,) if isinstance(seeds, str) else seeds, GRPC_PORT)
        rng = rng or random.SystemRandom()
        channels = ChannelFactory(credentials)
        placement: Placement = DirectPlacement(rng) if mode == "direct" else RouterPlacement(addresses, rng)
        engine = Engine(
            transport=transport or NodeTransport(channels, pipeline=credentials is None),
            source=source or GrpcTopologySource(addresses, channels, rng, seeds_only=mode == "router"),
            placement=placement,
            rng=rng,
            loop=asyncio.get_running_loop(),
            limits=limits,
            backoff=backoff,
        )
        engine.start()
        try:
            async with asyncio.timeout(timeout):
                await engine.wait_for_map()
        except TimeoutError:
            trouble = engine.trouble or "no answer"
            await engine.close()
            raise UnavailableError(f"no map within {timeout} s from {', '.join(addresses)} ({trouble})") from None
        except BaseException:
            await engine.close()
            raise
        return cls(engine, timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End all connections. Calls still waiting fail: what was sent as unknown, the rest as not applied."""
        await self._engine.close()

    async def get(
        self,
        key: bytes,
        *,
        read_mode: ReadMode = ReadMode.LINEARIZABLE,
        max_lag: float | None = None,
        timeout: float | None = None,
    ) -> Record | None:
        """The newest record of a key; None when there is none.

        `max_lag` in seconds goes with BOUNDED: how far behind the leader the answering replica may be.
        """
        profile = LINEARIZABLE
        if read_mode is not ReadMode.LINEARIZABLE or max_lag is not None:
            profile = read_profile(read_mode, max_lag)
        version, value, error = await self._call(GET, key, b"", None, timeout, profile)
        if error is None:
            return make_tuple(Record, (key, value, version))
        if error.code == kv_pb2.ERROR_CODE_NOT_FOUND:
            return None
        raise exception_of(error)

    async def put(
        self, key: bytes, value: bytes, *, expected_version: int | None = None, timeout: float | None = None
    ) -> int:
        """Write a key, whether it exists or not; returns the new version.

        With `expected_version` (0: the key must not exist) raises VersionMismatchError when the key has another.
        """
        if type(value) is not bytes or len(value) > MAX_VALUE_BYTES:
            check_value(value)  # says what is wrong
        version, _, error = await self._call(PUT, key, value, expected_version, timeout, None)
        if error is None:
            return version
        raise exception_of(error)

    async def create(self, key: bytes, value: bytes, *, timeout: float | None = None) -> int:
        """Write a key that must not exist; returns its version. Raises AlreadyExistsError."""
        check_value(value)
        return self._version(await self._call(CREATE, key, value, None, timeout, None))

    async def update(
        self, key: bytes, value: bytes, *, expected_version: int | None = None, timeout: float | None = None
    ) -> int:
        """Write a key that must exist; returns its new version. Raises NotFoundError, VersionMismatchError."""
        check_value(value)
        return self._version(await self._call(UPDATE, key, value, expected_version, timeout, None))

    async def delete(self, key: bytes, *, expected_version: int | None = None, timeout: float | None = None) -> int:
        """Remove a key that must exist; returns the deletion's version. Raises NotFoundError, VersionMismatchError."""
        return self._version(await self._call(DELETE, key, b"", expected_version, timeout, None))

    async def batch(
        self,
        operations: Sequence[Operation],
        *,
        read_mode: ReadMode = ReadMode.LINEARIZABLE,
        max_lag: float | None = None,
        timeout: float | None = None,
    ) -> list[Record | KVClusterError]:
        """Do up to 1,000 operations; returns one record or error per operation, in order (errors are not raised).

        Not atomic. Operations on one partition are applied in their order. A missing key of a get is a NotFoundError
        here. When an answer was lost and a batch of reads and writes has to be sent again, its writes are not applied
        again, but its reads run again and may see them. Raises InvalidArgumentError when nothing can be sent.
        """
        checked = check_operations(operations)
        profile = read_profile(read_mode, max_lag)
        results = await self.run_batch(checked, profile, deadline=self._deadline(timeout))
        if type(results) is Done:
            records = zip(keys_of(checked), results.values, results.versions, strict=True)
            return list(map(make_tuple, repeat(Record), records))
        return [
            make_tuple(Record, (operation[1], result[1], result[0])) if result[2] is None else exception_of(result[2])
            for operation, result in zip(operations, results, strict=True)
        ]

    async def run_batch(
        self,
        operations: Sequence[OperationTuple],
        profile: ReadProfile,
        *,
        deadline: float,
        pair: tuple[bytes, int] | None = None,
        age: float = 0.0,
        observed: int = 0,
    ) -> Sequence[ResultTuple]:
        """As `batch`, in plain tuples, unchecked: what the router forwards.

        `deadline` is by the loop's clock. A caller's own `pair`, `age` seconds old, is passed on with every part, and
        the version that it has `observed`.
        """
        born = self._engine.loop.time() - age if pair is not None else None
        results: list[ResultTuple] = [_NOTHING] * len(operations)
        left: Sequence[int] = range(len(operations))
        while left:
            parts = self._parts(operations, left)
            started = [
                self._part(part, p, profile, deadline=deadline, pair=pair, born=born, observed=observed)
                for p, _, part in parts
            ]
            answers = [await started[0]] if len(started) == 1 else await asyncio.gather(*started)
            if len(left) == len(results) and all(map(all_done, answers)):  # as most are: whole, without an error
                return answers[0] if len(answers) == 1 else _in_order([at for _, at, _ in parts], answers)
            again: list[int] = []
            for (p, at, _), answer in zip(parts, answers, strict=True):
                for i, result in zip(at, answer, strict=True):
                    results[i] = result
                    if _is_moved(result[2]) and self._moved(operations[i], p, deadline):
                        again.append(i)  # the map changed under a group: split it anew
            left = sorted(again)
        return results

    def _parts(
        self, operations: Sequence[OperationTuple], at: Sequence[int]
    ) -> list[tuple[int | None, Sequence[int], Sequence[OperationTuple]]]:
        """Of the operations at these positions, each partition's: the partition, their positions, they themselves."""
        asked = operations if len(at) == len(operations) else picked(operations, at)
        owners = self._engine.partitions_of(keys_of(asked))
        if owners.count(owners[0]) == len(owners):
            return [(owners[0], at, asked)]
        parts = partition_parts(owners).items()
        return [(p, [at[i] for i in places], picked(asked, places)) for p, places in parts]

    async def _part(
        self,
        operations: Sequence[OperationTuple],
        partition: int | None,
        profile: ReadProfile,
        *,
        deadline: float,
        pair: tuple[bytes, int] | None,
        born: float | None,
        observed: int,
    ) -> Sequence[ResultTuple]:
        if partition is None or self._engine.closed:
            message = "the client was closed" if self._engine.closed else "no map is known yet; nothing was applied"
            error = kv_pb2.Error(code=kv_pb2.ERROR_CODE_UNAVAILABLE, message=message)
            return [(0, b"", error)] * len(operations)
        future: asyncio.Future[Sequence[ResultTuple]] = self._engine.loop.create_future()
        plain = type(operations) is Columns
        reads = operations[0][0] == GET if plain else all(operation[0] == GET for operation in operations)
        group = Group(operations, deadline, future, None if reads else pair, born)
        group.observed = observed
        if not self._engine.try_submit(group, partition, profile if reads else None):
            await self._engine.submit(group, partition, profile if reads else None)
        return await future

    def _moved(self, operation: OperationTuple, partition: int | None, deadline: float) -> bool:
        owner = self._engine.partition_of(operation[1])
        return owner is not None and owner != partition and self._engine.loop.time() < deadline

    def run_call(self, call: Call, profile: ReadProfile | None) -> Awaitable[ResultTuple]:
        """One operation, unchecked: taken at once where there is room, and what to await. Raises ClientClosedError."""
        engine = self._engine
        slot_map = engine.view.slot_map
        if engine.closed or slot_map is None:
            raise ClientClosedError("the client was closed" if engine.closed else "no map is known yet")
        partition = slot_map.owners[slot_of(call.operation[1])]
        if engine.try_submit(call, partition, profile):
            return call.future
        return self._when_there_is_room(call, partition, profile)

    async def _when_there_is_room(self, call: Call, partition: int, profile: ReadProfile | None) -> ResultTuple:
        await self._engine.submit(call, partition, profile)
        return await call.future

    def _call(  # noqa: PLR0917 - every operation passes here: keywords would cost a tenth of the call
        self,
        kind: int,
        key: bytes,
        value: bytes,
        expected: int | None,
        timeout: float | None,
        profile: ReadProfile | None,
    ) -> Awaitable[ResultTuple]:
        if type(key) is not bytes or not 0 < len(key) <= MAX_KEY_BYTES:
            check_key(key)  # says what is wrong
        if expected is not None:
            check_version(expected)
        return self._engine.call((kind, key, value, expected), self._timeout if timeout is None else timeout, profile)

    def _deadline(self, timeout: float | None) -> float:
        return self._engine.loop.time() + (self._timeout if timeout is None else timeout)

    @staticmethod
    def _version(result: ResultTuple) -> int:
        if result[2] is None:
            return result[0]
        raise exception_of(result[2])


_NOTHING: ResultTuple = (0, b"", kv_pb2.Error())


def _in_order(places: Sequence[Sequence[int]], answers: Sequence[Sequence[ResultTuple]]) -> Done:
    """The results of all parts, each where its operation was; none is an error."""
    count = sum(map(len, places))
    versions, values = [0] * count, [b""] * count
    for at, answer in zip(places, answers, strict=True):
        for i, (version, value, _) in zip(at, answer, strict=True):
            versions[i], values[i] = version, value
    return Done(versions, values)


def _is_moved(error: kv_pb2.Error | None) -> bool:
    return error is not None and error.code == kv_pb2.ERROR_CODE_MOVED
