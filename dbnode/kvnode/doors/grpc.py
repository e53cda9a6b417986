"""The gRPC door: KeyValue and Cluster, health and reflection, on the request service."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from kvcommon.clock import Clock
from kvcommon.errors import KVClusterError
from kvcommon.numbers import MAX_GRPC_MESSAGE_BYTES
from kvcoord.topology import topology_of
from kvcoord.view import ClusterWatch
from kvnode.doors.answers import LEADERSHIP_ENDED, Errors, wrong_batch, wrong_freshness
from kvnode.operations import Code, Kind, Operation, Outcome, ReadMode, Request
from kvnode.service import Service
from kvproto.errors import abort_with
from kvproto.pipeline import in_columns
from kvproto.v1 import cluster_pb2, cluster_pb2_grpc, kv_pb2, kv_pb2_grpc

Context = aio.ServicerContext[Any, Any]

MAX_UNANSWERED = 64  # batches of one stream
MAX_UNSENT = 8  # answers of one stream that the client does not take
KEEPALIVE_MS = 10_000  # a stream whose client is gone without a word ends after two of these

Answers = asyncio.Queue[kv_pb2.BatchResponse | str | Exception | None]
"""Of one stream: responses; a reason to end it; a defect; None: all was answered."""


class KeyValueDoor(kv_pb2_grpc.KeyValueServicer):
    """The data API on one node."""

    def __init__(self, service: Service, clock: Clock, errors: Errors) -> None:
        self._service, self._clock, self._errors = service, clock, errors

    # --- one operation -----------------------------------------------------------------------------------------------

    async def Get(self, request: kv_pb2.GetRequest, context: Context) -> kv_pb2.Record:  # noqa: N802 - gRPC's name
        return await self._one((Kind.GET, request.key, b"", None), request, context)

    async def Put(self, request: kv_pb2.PutRequest, context: Context) -> kv_pb2.Record:  # noqa: N802 - gRPC's name
        return await self._one((Kind.PUT, request.key, request.value, _expected(request)), request, context)

    async def Create(self, request: kv_pb2.CreateRequest, context: Context) -> kv_pb2.Record:  # noqa: N802
        return await self._one((Kind.CREATE, request.key, request.value, _expected(request)), request, context)

    async def Update(self, request: kv_pb2.UpdateRequest, context: Context) -> kv_pb2.Record:  # noqa: N802
        return await self._one((Kind.UPDATE, request.key, request.value, _expected(request)), request, context)

    async def Delete(self, request: kv_pb2.DeleteRequest, context: Context) -> kv_pb2.Record:  # noqa: N802
        return await self._one((Kind.DELETE, request.key, b"", _expected(request)), request, context)

    async def _one(self, operation: Operation, message: Any, context: Context) -> kv_pb2.Record:
        request = Request([operation], observed=message.observed_version, size=len(operation[1]) + len(operation[2]))
        if operation[0] == Kind.GET:
            wrong = _wrong_freshness(message)
            if wrong:
                await abort_with(context, kv_pb2.Error(code=kv_pb2.ERROR_CODE_INVALID_ARGUMENT, message=wrong))
            request.read_mode, request.max_lag = _freshness(message)
        request.deadline = self._deadline(context.time_remaining())
        outcomes = await self._service.call(request)
        outcome = outcomes[0] if outcomes else Outcome(Code.OUTCOME_UNKNOWN)
        if outcome.code:
            await abort_with(context, self._errors.of(outcome))
        return kv_pb2.Record(version=outcome.version, value=outcome.value)

    # --- batches -----------------------------------------------------------------------------------------------------

    async def Batch(self, request: kv_pb2.BatchRequest, context: Context) -> kv_pb2.BatchResponse:  # noqa: N802
        wrong = _wrong_batch(request)
        if wrong:
            await abort_with(context, kv_pb2.Error(code=kv_pb2.ERROR_CODE_INVALID_ARGUMENT, message=wrong))
        outcomes = await self._service.call(self._request(request, self._deadline(context.time_remaining())))
        if outcomes is None:
            outcomes = [Outcome(Code.OUTCOME_UNKNOWN)] * len(request.operations)
        return self._response(request, outcomes)

    async def Pipeline(  # noqa: N802 - gRPC's name
        self, requests: AsyncIterator[kv_pb2.BatchRequest], context: Context
    ) -> AsyncIterator[kv_pb2.BatchResponse]:
        """Batches in, answers out as they come; ends with UNAVAILABLE when the writes' outcome can't be told here.

        The client then sends what is unanswered again, with the same pairs, to whoever leads.
        """
        answers: Answers = asyncio.Queue()
        room = asyncio.Semaphore(MAX_UNANSWERED)
        taken = asyncio.Event()

        async def read() -> None:
            try:
                async for message in requests:
                    await room.acquire()
                    while answers.qsize() >= MAX_UNSENT:  # a client that only sends gets no more read
                        taken.clear()
                        await taken.wait()
                    self._submit(message, answers)
                for _ in range(MAX_UNANSWERED):  # the client has sent all; what is under way is still answered
                    await room.acquire()
                answers.put_nowait(None)
            except Exception as e:  # the other half of the stream must learn of it
                answers.put_nowait(e)

        reader = asyncio.create_task(read(), name="pipeline reader")
        try:
            while (answer := await answers.get()) is not None:
                taken.set()
                if isinstance(answer, str):
                    await abort_with(context, kv_pb2.Error(code=kv_pb2.ERROR_CODE_NOT_LEADER, message=answer))
                if isinstance(answer, Exception):
                    raise answer
                yield answer
                room.release()
        finally:
            reader.cancel()

    def _submit(self, message: kv_pb2.BatchRequest, answers: Answers) -> None:
        wrong = _wrong_batch(message)
        if wrong:
            bad = Outcome(Code.INVALID_ARGUMENT, message=wrong)
            answers.put_nowait(self._response(message, [bad] * len(message.operations)))
            return
        timeout = message.timeout_ms / 1000 if message.timeout_ms else None
        self._service.submit(self._request(message, self._deadline(timeout)), self._answer(message, answers))

    def _answer(self, message: kv_pb2.BatchRequest, answers: Answers) -> Callable[[Sequence[Outcome] | None], None]:
        def answer(outcomes: Sequence[Outcome] | None) -> None:
            if outcomes is not None:
                answers.put_nowait(self._response(message, outcomes))
            elif message.client_id:
                answers.put_nowait(LEADERSHIP_ENDED)
            else:
                unknown = [Outcome(Code.OUTCOME_UNKNOWN)] * len(message.operations)
                answers.put_nowait(self._response(message, unknown))

        return answer

    def _request(self, message: kv_pb2.BatchRequest, deadline: float) -> Request:
        operations: list[Operation] = []
        size = 0
        for op in message.operations:
            key, value = op.key, op.value
            size += len(key) + len(value)
            expected = op.expected_version if op.HasField("expected_version") else None
            operations.append((op.kind, key, value, expected))
        mode, lag = _freshness(message)
        return Request(
            in_columns(operations) if operations else operations,
            pair=(message.client_id, message.sequence) if message.client_id else None,
            age=message.age_ms / 1000,
            read_mode=mode,
            max_lag=lag,
            observed=message.observed_version,
            deadline=deadline,
            size=size,
        )

    def _response(self, message: kv_pb2.BatchRequest, outcomes: Sequence[Outcome]) -> kv_pb2.BatchResponse:
        result, record = kv_pb2.Result, kv_pb2.Record
        return kv_pb2.BatchResponse(
            id=message.id,
            results=[
                result(error=self._errors.of(out)) if out[0] else result(record=record(version=out[1], value=out[2]))
                for out in outcomes
            ],
        )

    def _deadline(self, remaining: float | None) -> float:
        return float("inf") if remaining is None else self._clock.now() + remaining


def _expected(message: Any) -> int | None:
    return int(message.expected_version) if message.HasField("expected_version") else None


def _freshness(message: Any) -> tuple[int, float]:
    """(read mode, largest lag in seconds)."""
    return message.read_mode or ReadMode.LINEARIZABLE, message.max_lag_ms / 1000


def _wrong_batch(message: kv_pb2.BatchRequest) -> str:
    """What is wrong with a batch as a whole; empty: nothing."""
    wrong = wrong_batch(len(message.operations), message.ByteSize(), message.client_id, message.sequence)
    return wrong or _wrong_freshness(message)


def _wrong_freshness(message: Any) -> str:
    return wrong_freshness(message.read_mode, message.max_lag_ms)


class ClusterDoor(cluster_pb2_grpc.ClusterServicer):
    """The cluster as this node sees it, and the node itself."""

    def __init__(self, watch: ClusterWatch, status: Callable[[], cluster_pb2.NodeStatus]) -> None:
        self._watch, self._status = watch, status

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
        context: Context,  # noqa: ARG002
    ) -> cluster_pb2.NodeStatus:
        return self._status()


class GrpcServer:
    """The gRPC port: both services, health and reflection."""

    def __init__(self, key_value: KeyValueDoor, cluster: ClusterDoor) -> None:
        self.server = aio.server(
            options=[
                ("grpc.max_receive_message_length", MAX_GRPC_MESSAGE_BYTES),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_time_ms", KEEPALIVE_MS),
                ("grpc.keepalive_timeout_ms", KEEPALIVE_MS),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 500),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 500),
                ("grpc.http2.max_ping_strikes", 0),
            ]
        )
        kv_pb2_grpc.add_KeyValueServicer_to_server(key_value, self.server)
        cluster_pb2_grpc.add_ClusterServicer_to_server(cluster, self.server)
        self.health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        names = ("kvcluster.v1.KeyValue", "kvcluster.v1.Cluster", health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self.server)

    async def start(self, host: str, port: int) -> int:
        """Serve; returns the port. Raises KVClusterError when it can't be had."""
        try:
            bound = self.server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as e:
            msg = f"can't serve gRPC on {host}:{port}; set another --grpc-port, or end what holds this one"
            raise KVClusterError(msg) from e
        await self.server.start()
        return bound

    async def set_serving(self, *, serving: bool) -> None:
        """What health checks are told."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", "kvcluster.v1.KeyValue"):
            await self.health.set(name, status)

    async def close(self, grace: float) -> None:
        """Stop taking calls; those under way have `grace` seconds."""
        await self.server.stop(grace)
