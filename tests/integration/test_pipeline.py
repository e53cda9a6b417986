"""The pipeline port of real nodes in this process, and kvclient's way to it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from kvclient import AsyncClient, NotFoundError, Operation, Record
from kvclient.grpc_transport import ChannelFactory, GrpcStream
from kvclient.pipeline_transport import NodeTransport, PipelineStream
from kvclient.topology import Endpoint
from kvclient.transport import Receiver
from kvnode.doors import pipeline as door
from kvproto import pipeline
from kvproto.pipeline import Request, ResultTuple
from kvproto.v1 import kv_pb2
from tests.support.node_cluster import NodeCluster, node_cluster

GET, PUT = kv_pb2.OPERATION_KIND_GET, kv_pb2.OPERATION_KIND_PUT


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[NodeCluster]:
    """One node, which leads."""
    async with node_cluster(tmp_path, pods=1) as cluster:
        await cluster.put(b"ready", b"")
        yield cluster


async def address(cluster: NodeCluster) -> str:
    return (await cluster.member("c-p0-0")).pipeline_address


async def dial(cluster: NodeCluster) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = (await address(cluster)).rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def frames(
    reader: asyncio.StreamReader, count: int, decoder: pipeline.Decoder | None = None
) -> list[tuple[int, bytes]]:
    """At least the next `count` frames; fewer if the connection ends."""
    decoder, found = decoder or pipeline.Decoder(), list[tuple[int, bytes]]()
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionResetError):
            while len(found) < count and (data := await reader.read(1 << 16)):
                found += decoder.feed(data)
    return found


class Listener(Receiver):
    """Writes down what a stream says."""

    def __init__(self) -> None:
        self.open, self.end = asyncio.Event(), asyncio.Event()
        self.answers: asyncio.Queue[tuple[int, Sequence[ResultTuple]]] = asyncio.Queue()
        self.reason = ""

    def opened(self) -> None:
        self.open.set()

    def answered(self, number: int, results: object) -> None:
        assert isinstance(results, Sequence)
        self.answers.put_nowait((number, results))

    def lost(self, reason: str) -> None:
        self.reason = reason
        self.end.set()


async def test_kvclient_goes_by_frames_where_they_are_offered(cluster: NodeCluster) -> None:
    """Values, versions and errors come back as over gRPC."""
    grpc_address = (await cluster.member("c-p0-0")).grpc_address
    async with await AsyncClient.connect(grpc_address) as client:
        version = await client.put(b"k", b"v")
        read, none = await client.batch([Operation.get(b"k"), Operation.get(b"none")])
        [connection] = client._engine._connections.values()
        assert isinstance(connection._stream, PipelineStream)
    assert read == Record(b"k", b"v", version)
    assert isinstance(none, NotFoundError)


async def test_an_address_that_can_not_be_reached_is_tried_over_grpc_next(cluster: NodeCluster) -> None:
    """A firewall may let one port through and not the other."""
    member = await cluster.member("c-p0-0")
    closed = Endpoint(member.pod, member.run, member.grpc_address, "127.0.0.1:1")
    transport, first, second = NodeTransport(ChannelFactory()), Listener(), Listener()
    transport.open(closed, first)
    async with asyncio.timeout(10):
        await first.end.wait()
        stream = transport.open(closed, second)
        await second.open.wait()
    assert isinstance(stream, GrpcStream)
    assert "127.0.0.1:1" in first.reason
    stream.close()
    await transport.close()


async def test_answers_are_matched_by_id_and_a_batch_too_large_is_refused(cluster: NodeCluster) -> None:
    """What is wrong with a batch as a whole is said of each operation."""
    reader, writer = await dial(cluster)
    many: list[pipeline.OperationTuple] = [(GET, b"k", b"", None)] * 1001
    writer.write(pipeline.HELLO_FRAME + pipeline.encode_request(Request(many, id=8)))
    writer.write(pipeline.encode_request(Request([(PUT, b"k", b"v", None)], id=9)))
    hello, *answers = await frames(reader, 3)
    found = dict(pipeline.decode_answer(body) for _, body in answers)
    assert hello == (pipeline.HELLO, b"KVPL")
    assert len(found[8]) == 1001
    assert all(error and "1 to 1000 are possible" in error.message for _, _, error in found[8])
    assert found[9][0][2] is None
    writer.close()


@pytest.mark.parametrize(
    "nonsense",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(64),
        pipeline.frame(pipeline.HELLO, b"PRI *"),
        pipeline.PING_FRAME,
        pipeline.HELLO_FRAME + pipeline.frame(pipeline.REQUEST, b"x"),
        pipeline.HELLO_FRAME + pipeline.frame(99),
    ],
)
async def test_nonsense_ends_its_connection_only(cluster: NodeCluster, nonsense: bytes) -> None:
    """The node serves on."""
    reader, writer = await dial(cluster)
    writer.write(nonsense)
    assert [kind for kind, _ in await frames(reader, 9)] in ([], [pipeline.HELLO])
    assert (await cluster.get("c-p0-0", b"ready")).value == b""
    writer.close()


async def test_a_client_that_has_gone_silent_is_hung_up_on(
    cluster: NodeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that connections of machines that died do not gather."""
    monkeypatch.setattr(door, "SILENCE", 0.05)
    reader, writer = await dial(cluster)
    writer.write(pipeline.HELLO_FRAME)
    assert await frames(reader, 9) == [(pipeline.HELLO, b"KVPL")]
    writer.close()


async def test_a_server_that_has_gone_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that lost its power says nothing: the batches go elsewhere."""
    monkeypatch.setattr("kvclient.pipeline_transport.KEEPALIVE", 0.02)

    class Mute(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.WriteTransport)
            transport.write(pipeline.HELLO_FRAME)

    server = await asyncio.get_running_loop().create_server(Mute, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport, listener = NodeTransport(ChannelFactory()), Listener()
    transport.open(Endpoint("p", "r", "", f"127.0.0.1:{port}"), listener)
    async with asyncio.timeout(10):
        await listener.end.wait()
    assert listener.open.is_set()
    assert "nothing heard" in listener.reason
    await transport.close()
    server.close()
