"""The bare limits: what a call, a batch on a stream and an fsync cost with nothing of ours behind them."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from bench.measure import Sample, load, percentiles
from kvlocal.ports import free_ports
from kvproto.v1 import kv_pb2, kv_pb2_grpc

_SERVICE = "kvcluster.v1.KeyValue"


async def _answer(request: kv_pb2.GetRequest, context: Any) -> kv_pb2.Record:
    del request, context
    return kv_pb2.Record()


async def _answer_stream(requests: Any, context: Any) -> AsyncIterator[kv_pb2.BatchResponse]:
    del context
    async for request in requests:
        yield kv_pb2.BatchResponse(id=request.id)


async def _serve(port: int) -> None:
    serialize = kv_pb2.Record.SerializeToString
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Get": grpc.unary_unary_rpc_method_handler(_answer, kv_pb2.GetRequest.FromString, serialize),
        "Pipeline": grpc.stream_stream_rpc_method_handler(
            _answer_stream, kv_pb2.BatchRequest.FromString, kv_pb2.BatchResponse.SerializeToString
        ),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def _serve_in_threads(port: int) -> None:
    """The synchronous server, with one method."""
    serialize = kv_pb2.Record.SerializeToString
    answer = grpc.unary_unary_rpc_method_handler(
        lambda _request, _context: kv_pb2.Record(), kv_pb2.GetRequest.FromString, serialize
    )
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"Get": answer}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


@asynccontextmanager
async def empty_server(*, threads: bool = False) -> AsyncIterator[tuple[str, grpc.aio.Channel]]:
    """A Python gRPC server in its own process that answers at once: its address, and a channel to it."""
    port = free_ports(1)[0]
    arguments = [str(port), *(["threads"] if threads else [])]
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.bare", *arguments)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await asyncio.wait_for(channel.channel_ready(), 30)
            yield f"127.0.0.1:{port}", channel
    finally:
        process.terminate()
        await process.wait()


async def empty_calls(channel: grpc.aio.Channel, tasks: int, seconds: float) -> Sample:
    """Unary calls with an empty message both ways."""
    stub: Any = kv_pb2_grpc.KeyValueStub(channel)
    request = kv_pb2.GetRequest()
    return await load(tasks, seconds, lambda _task, _count: stub.Get(request))


@dataclass
class _Stream:
    """Empty batches on one stream, answers matched by id."""

    call: Any
    waiting: dict[int, asyncio.Future[None]] = field(default_factory=dict)
    last: int = 0

    async def read(self) -> None:
        async for answer in self.call:
            self.waiting.pop(answer.id).set_result(None)


async def empty_batches(channel: grpc.aio.Channel, tasks: int, seconds: float) -> Sample:
    """Empty batches on one stream, so many of them on their way at once."""
    stub: Any = kv_pb2_grpc.KeyValueStub(channel)
    stream = _Stream(stub.Pipeline())
    write = asyncio.Lock()  # a stream takes one write at a time

    async def one(_task: int, _count: int) -> None:
        stream.last += 1
        number = stream.last
        done = stream.waiting[number] = asyncio.get_running_loop().create_future()
        async with write:
            await stream.call.write(kv_pb2.BatchRequest(id=number))
        await done

    reader = asyncio.create_task(stream.read())
    try:
        return await load(tasks, seconds, one)
    finally:
        await stream.call.done_writing()
        await reader


def fdatasync(folder: Path, seconds: float, size: int = 4096) -> Sample:
    """Appends of `size` bytes, each followed by fdatasync, from one thread."""
    path = folder / "fdatasync.bin"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    block, latencies = os.urandom(size), []
    begin = time.perf_counter()
    try:
        while (sent := time.perf_counter()) < begin + seconds:
            os.write(descriptor, block)
            os.fdatasync(descriptor)
            latencies.append(time.perf_counter() - sent)
    finally:
        os.close(descriptor)
        path.unlink()
    return Sample(len(latencies) / (time.perf_counter() - begin), *percentiles(latencies, 0.5, 0.99, 0.999))


if __name__ == "__main__":
    if sys.argv[2:] == ["threads"]:
        _serve_in_threads(int(sys.argv[1]))
    else:
        asyncio.run(_serve(int(sys.argv[1])))
