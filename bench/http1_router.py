"""What stands behind Envoy in the bench: a router's engine behind HTTP/1.1, parsed in C (httptools), no task per call.

`python -m bench.http1_router COORDINATION PORT`; several may share the port. Not shipped: it serves Get and Put to the
bench's Envoy, which turns gRPC into this, and nobody else.
"""

import asyncio
import random
import sys
from functools import partial
from typing import Any, cast

import httptools
from prometheus_client import CollectorRegistry

from kvclient.aio import AsyncClient
from kvclient.engine import Engine
from kvclient.grpc_transport import ChannelFactory
from kvclient.operations import GET, PUT
from kvclient.pipeline_transport import NodeTransport
from kvclient.placement import DirectPlacement
from kvcommon.clock import SystemClock
from kvcommon.server import run
from kvcoord.open import open_coordination
from kvcoord.view import ClusterWatch
from kvlocal.ports import HOST
from kvproto.pipeline import ResultTuple
from kvproto.v1 import kv_pb2
from kvrouter.door import KeyValueDoor
from kvrouter.metrics import RouterMetrics
from kvrouter.topology import CoordinationSource

_METHODS: dict[bytes, tuple[int, Any]] = {
    b"/kvcluster.v1.KeyValue/Get": (GET, kv_pb2.GetRequest),
    b"/kvcluster.v1.KeyValue/Put": (PUT, kv_pb2.PutRequest),
}
_HEAD = b"HTTP/1.1 %d Answer\r\ncontent-type: application/x-protobuf\r\ncontent-length: %d\r\n\r\n"


class _Http1(asyncio.Protocol):
    """One request at a time, as Envoy sends them; to the engine it is the operation's future."""

    def __init__(self, door: KeyValueDoor) -> None:
        self._door = door
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._url, self._body = b"", b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        kind, message = _METHODS[self._url]
        body, self._body = self._body, b""
        begun = self._door.begin(kind, message.FromString(body), None, cast("asyncio.Future[ResultTuple]", self))
        if isinstance(begun, tuple):
            self.set_result(begun)

    def done(self) -> bool:
        return False

    def set_result(self, result: ResultTuple) -> None:
        version, value, error = result
        body = b"" if error is not None else kv_pb2.Record(version=version, value=value).SerializeToString()
        assert self._transport is not None
        self._transport.write(_HEAD % (500 if error is not None else 200, len(body)) + body)


async def _serve(coordination_url: str, port: int, stop: asyncio.Event) -> None:
    loop, rng = asyncio.get_running_loop(), random.SystemRandom()
    coordination = open_coordination(coordination_url)
    await coordination.start()
    watch = ClusterWatch(coordination, lambda _: None)
    engine = Engine(
        transport=NodeTransport(ChannelFactory()),
        source=CoordinationSource(watch),
        placement=DirectPlacement(rng),
        rng=rng,
        loop=loop,
        session=False,
    )
    watch.start()
    engine.start()
    await engine.wait_for_map()
    door = KeyValueDoor(AsyncClient(engine), SystemClock(), RouterMetrics(CollectorRegistry()))
    server = await loop.create_server(lambda: _Http1(door), HOST, port, reuse_port=True)
    await stop.wait()
    server.close()
    await engine.close()
    await watch.close()
    await coordination.close()


if __name__ == "__main__":
    run(partial(_serve, sys.argv[1], int(sys.argv[2])))
