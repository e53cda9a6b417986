"""The router's gRPC services: KeyValue, forwarded by the client's engine, and Cluster, from what coordination says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import grpc
from grpc import aio

from kvclient.aio import AsyncClient
from kvclient.errors import ClientClosedError
from kvclient.operations import CREATE, DELETE, GET, PUT, UPDATE, ReadMode, ReadProfile
from kvclient.units import Call
from kvcommon.clock import Clock
from kvcoord.topology import topology_of
from kvcoord.view import ClusterWatch
from kvproto.errors import abort_with
from kvproto.pipeline import ResultTuple
from kvproto.v1 import cluster_pb2, cluster_pb2_grpc, kv_pb2, kv_pb2_grpc
from kvrouter.metrics import RouterMetrics
from kvrouter.requests import (
    profile_of,
    seconds_to_answer,
    wrong_batch,
    wrong_key,
    wrong_observed,
    wrong_read,
    wrong_value,
)

Context = aio.ServicerContext[Any, Any]

MAX_UNANSWERED = 64  # batches of one stream; more wait in gRPC's flow control


class KeyValueDoor(kv_pb2_grpc.KeyValueServicer):
    """The data API, for any key."""

    def __init__(self, client: AsyncClient, clock: Clock, metrics: RouterMetrics) -> None:
        self._client, self._clock, self._metrics = client, clock, metrics
        self._loop = asyncio.get_running_loop()

    async def Get(self, request: kv_pb2.GetRequest, context: Context) -> kv_pb2.Record:  # noqa: N802 - gRPC's name
        return await self._one(GET, request, context)

    async def Put(self, request: kv_pb2.PutRequest, context: Context) -> kv_pb2.Record:  # noqa: N802 - gRPC's name
        return await self._one(PUT, request, context)

    async def Create(self, request: kv_pb2.CreateRequest, context: Context) -> kv_pb2.Record:  # noqa: N802
        return await self._one(CREATE, request, context)

    async def Update(self, request: kv_pb2.UpdateRequest, context: Context) -> kv_pb2.Record:  # noqa: N802
        return await self._one(UPDATE, request, context)

    async def Delete(self, request: kv_pb2.DeleteRequest, context: Context) -> kv_pb2.Record:  # noqa: N802
        return await self._one(DELETE, request, context)

    async def Batch(self, request: kv_pb2.BatchRequest, context: Context) -> kv_pb2.BatchResponse:  # noqa: N802
        await self._refuse(self._wrong_batch(request), context)
        return await self._batch(request, seconds_to_answer(context.time_remaining()))

    async def Pipeline(  # noqa: N802 - gRPC's name
        self, requests: AsyncIterator[kv_pb2.BatchRequest], context: Context
    ) -> AsyncIterator[kv_pb2.BatchResponse]:
        """Batches in, answers out as they come; a stream that its client has closed is answered to the end."""
        del context
        answers: asyncio.Queue[kv_pb2.BatchResponse | None] = asyncio.Queue()
        reader = asyncio.create_task(self._read(requests, answers), name="pipeline")
        try:
            while (answer := await answers.get()) is not None:
                yield answer
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(
        self,
        requests: AsyncIterator[kv_pb2.BatchRequest],
        answers: "asyncio.Queue[kv_pb2.BatchResponse | None]",
    ) -> None:
        room = asyncio.Semaphore(MAX_UNANSWERED)

        async def answer(request: kv_pb2.BatchRequest) -> None:
            try:
                answers.put_nowait(await self._answer(request))
            finally:
                room.release()

        try:
            async with asyncio.TaskGroup() as tasks:
                async for request in requests:
                    await room.acquire()
                    tasks.create_task(answer(request))
        finally:
            answers.put_nowait(None)

    async def _answer(self, request: kv_pb2.BatchRequest) -> kv_pb2.BatchResponse:
        wrong = self._wrong_batch(request)
        if wrong:
            self._metrics.refused.inc()
            results = [kv_pb2.Result(error=_invalid(wrong))] * max(1, len(request.operations))
            return kv_pb2.BatchResponse(id=request.id, results=results)
        return await self._batch(request, seconds_to_answer(request.timeout_ms / 1000))

    async def _batch(self, request: kv_pb2.BatchRequest, seconds: float) -> kv_pb2.BatchResponse:
        self._metrics.operations.inc(len(request.operations))
        results = await self._client.run_batch(
            [
                (o.kind, o.key, o.value, o.expected_version if o.HasField("expected_version") else None)
                for o in request.operations
            ],
            profile_of(request),
            deadline=self._loop.time() + seconds,
            pair=(request.client_id, request.sequence) if request.client_id else None,
            age=request.age_ms / 1000,
            observed=request.observed_version,
        )
        return kv_pb2.BatchResponse(id=request.id, results=[_result(result) for result in results])

    async def _one(self, kind: int, request: Any, context: Context) -> kv_pb2.Record:
        future: asyncio.Future[ResultTuple] = asyncio.get_running_loop().create_future()
        begun = self.begin(kind, request, context.time_remaining(), future)
        version, value, error = begun if isinstance(begun, tuple) else await begun
        if error is not None:
            await abort_with(context, error)
        return kv_pb2.Record(version=version, value=value)

    def begin(
        self, kind: int, request: Any, remaining: float | None, future: "asyncio.Future[ResultTuple]"
    ) -> Awaitable[ResultTuple] | ResultTuple:
        """Begin a single operation: what to await (`future` itself where there is room), or what came of it at once."""
        value, expected, profile, wrong = b"", None, None, ""
        if kind != GET:
            value, expected = b"" if kind == DELETE else request.value, _expected(request)
        elif not (wrong := wrong_read(request)):
            profile = profile_of(request)
        wrong = wrong or wrong_key(request.key) or wrong_value(value)
        wrong = wrong or self._wrong_observed(request.observed_version, profile)
        if wrong:
            self._metrics.refused.inc()
            return 0, b"", _invalid(wrong)
        self._metrics.operations.inc()
        deadline = self._loop.time() + seconds_to_answer(remaining)
        call = Call(kind, request.key, value, expected, deadline, future)
        call.observed = request.observed_version
        try:
            return self._client.run_call(call, profile)
        except ClientClosedError as e:
            return 0, b"", kv_pb2.Error(code=kv_pb2.ERROR_CODE_UNAVAILABLE, message=str(e))

    def _wrong_batch(self, request: kv_pb2.BatchRequest) -> str:
        reads = all(operation.kind == kv_pb2.OPERATION_KIND_GET for operation in request.operations)
        return wrong_batch(request) or self._wrong_observed(
            request.observed_version, profile_of(request) if reads else None
        )

    def _wrong_observed(self, version: int, profile: ReadProfile | None) -> str:
        """Rule 18, for writes (no profile) and linearizable reads.

        For others the replica judges by what it has: the version may be of a leader whose clock was ahead.
        """
        if profile is not None and profile.mode is not ReadMode.LINEARIZABLE:
            return ""
        return wrong_observed(version, self._clock.wall_ms())

    async def _refuse(self, wrong: str, context: Context) -> None:
        if wrong:
            self._metrics.refused.inc()
            await abort_with(context, _invalid(wrong))


class ClusterDoor(cluster_pb2_grpc.ClusterServicer):
    """The cluster as coordination has told it last."""

    def __init__(self, watch: ClusterWatch) -> None:
        self._watch = watch

    async def GetTopology(  # noqa: N802 - gRPC's name
        self,
        request: cluster_pb2.GetTopologyRequest,  # noqa: ARG002 - gRPC's signature
        context: Context,  # noqa: ARG002
    ) -> cluster_pb2.Topology:
        return topology_of(self._watch.view)

    async def WatchTopology(  # noqa: N802 - gRPC's name
        self,
        request: cluster_pb2.WatchTopologyRequest,  # noqa: ARG002 - gRPC's signature
        context: Context,  # noqa: ARG002
    ) -> AsyncIterator[cluster_pb2.Topology]:
        async for view in self._watch.changes():
            yield topology_of(view)

    async def GetNodeStatus(  # noqa: N802 - gRPC's name
        self,
        request: cluster_pb2.GetNodeStatusRequest,  # noqa: ARG002 - gRPC's signature
        context: Context,
    ) -> cluster_pb2.NodeStatus:
        await context.abort(
            grpc.StatusCode.UNIMPLEMENTED, "a router has no node status; ask the nodes, see GetTopology"
        )
        raise AssertionError("context.abort returned")


def _result(result: ResultTuple) -> kv_pb2.Result:
    version, value, error = result
    if error is not None:
        return kv_pb2.Result(error=error)
    return kv_pb2.Result(record=kv_pb2.Record(version=version, value=value))


def _expected(request: Any) -> int | None:
    return int(request.expected_version) if request.HasField("expected_version") else None


def _invalid(wrong: str) -> kv_pb2.Error:
    return kv_pb2.Error(code=kv_pb2.ERROR_CODE_INVALID_ARGUMENT, message=wrong)
