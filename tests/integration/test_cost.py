"""What a batch costs in writes, syncs and frames, counted at the seams of three real nodes in this process."""

import asyncio
import re
import sys
from collections import Counter
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any

import pytest

from kvclient import AsyncClient, Operation
from kvnode.core.messages import Append, Message
from kvnode.shell.transport import Connection
from kvproto import pipeline
from kvstore.files import OsFile
from tests.support.node_cluster import node_cluster

BATCHES, EACH, REPLICAS = 20, 100, 3
LONE_SETS, LONE_CALLS = 50, 400  # of functions of ours, on a leader and two followers; 395 as this is written
OURS = re.compile(r"/(kvnode|kvstore|kvresp|kvcommon)/")
CONNECTIONS, SETS, FEWEST_TOGETHER = 32, 20, 8


async def test_a_batch_is_one_write_and_one_sync_per_replica_and_one_frame_per_follower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many operations are in it; and one frame from the client, and one back."""
    counted: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def counting(*args: Any) -> Any:
            counted[name] += 1
            return real(*args)

        monkeypatch.setattr(owner, name, counting)

    send = Connection.send

    def counting_send(connection: Connection, message: Message) -> None:
        counted["frames with batches"] += isinstance(message, Append) and bool(message.batches)
        send(connection, message)

    async with node_cluster(tmp_path, pods=REPLICAS) as cluster:
        await cluster.put(b"ready", b"")
        address = (await cluster.member(cluster.pods[0])).grpc_address
        async with await AsyncClient.connect(address) as client:
            await client.put(b"connected", b"")
            for owner, name in ((OsFile, "write"), (OsFile, "sync")):
                count(owner, name)
            for name in ("encode_request", "decode_request", "encode_series", "decode_answer"):
                count(pipeline, name)
            monkeypatch.setattr(Connection, "send", counting_send)
            for n in range(BATCHES):
                await client.batch([Operation.put(b"%d-%d" % (n, i), bytes(256)) for i in range(EACH)])
            monkeypatch.undo()
    assert counted["write"] <= REPLICAS * BATCHES
    assert counted["sync"] <= REPLICAS * BATCHES
    assert counted["frames with batches"] <= (REPLICAS - 1) * BATCHES
    for name in ("encode_request", "decode_request", "encode_series", "decode_answer"):
        assert counted[name] == BATCHES, name


async def test_single_writes_of_many_connections_share_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes while the log is written is one batch: few frames, however many single commands."""
    frames = 0
    send = Connection.send

    def counting_send(connection: Connection, message: Message) -> None:
        nonlocal frames
        frames += isinstance(message, Append) and bool(message.batches)
        send(connection, message)

    async def one(address: str, number: int) -> None:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        for n in range(SETS):
            writer.write(b"SET %d-%d x\r\n" % (number, n))
            assert await reader.readline() == b"+OK\r\n"
        writer.close()
        await writer.wait_closed()

    async with node_cluster(tmp_path, pods=REPLICAS) as cluster:
        await cluster.put(b"ready", b"")
        address = (await cluster.member(await cluster.leader())).redis_address
        monkeypatch.setattr(Connection, "send", counting_send)
        await asyncio.gather(*(one(address, number) for number in range(CONNECTIONS)))
        monkeypatch.undo()
    assert frames <= (REPLICAS - 1) * CONNECTIONS * SETS / FEWEST_TOGETHER


async def test_a_lone_write_calls_few_functions_on_all_replicas(tmp_path: Path) -> None:
    """What its caller waits for is mostly this code, with cold caches. The median: a tick of a node's clock may come between."""
    calls: list[int] = []

    def count(frame: FrameType, event: str, _arg: object) -> None:
        calls[-1] += event == "call" and OURS.search(frame.f_code.co_filename) is not None

    async with node_cluster(tmp_path, pods=REPLICAS) as cluster:
        await cluster.put(b"ready", b"")
        address = (await cluster.member(await cluster.leader())).redis_address
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        for n in range(LONE_SETS):
            calls.append(0)
            sys.setprofile(count)
            writer.write(b"SET %d x\r\n" % n)
            answer = await reader.readline()
            sys.setprofile(None)
            assert answer == b"+OK\r\n"
        writer.close()
        await writer.wait_closed()
    assert median(calls) < LONE_CALLS
