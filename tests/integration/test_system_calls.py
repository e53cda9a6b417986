"""What a command costs real nodes in reads and writes of files and sockets: counted by the kernel, not timed.

The counts are those of /proc/PID/io: read, write, pread, pwrite and their kin, whoever calls them (uvloop, the store, Python). A
heartbeat now and then is among them, which the bounds have room for.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from kvlocal.cluster import LocalCluster
from tests.redis.notation import command
from tests.support.local_cluster import local_cluster

ROUNDS = 200
MANY = 32


class Calls(NamedTuple):
    """So many reads and writes."""

    reads: float
    writes: float


class Cost(NamedTuple):
    """Of one command."""

    leader: Calls
    follower: Calls


def calls_of(pid: int) -> Calls:
    """Since the process began."""
    counts = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return Calls(int(counts["syscr"]), int(counts["syscw"]))


def a_set(client: int) -> bytes:
    return command(b"SET", b"key%d" % client, bytes(256))


def a_get(client: int) -> bytes:
    return command(b"GET", b"key%d" % client)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    """One partition of three replicas."""
    async with local_cluster(tmp_path, router=False) as cluster:
        yield cluster


async def cost(cluster: LocalCluster, clients: int, make: Callable[[int], bytes], reply_bytes: int) -> Cost:
    """When so many clients send a command each, wait for all replies, and send again."""
    leader = await cluster.leader(0)
    pods = (leader, next(pod for pod in cluster.shape.pods if pod != leader))
    pids = [pid for pod in pods if (pid := cluster.pid(pod)) is not None]

    def ask() -> None:
        with ExitStack() as stack:
            address = ("127.0.0.1", cluster.port(leader, "redis"))
            connections = [stack.enter_context(socket.create_connection(address, 30)) for _ in range(clients)]
            for _ in range(ROUNDS):
                for number, connection in enumerate(connections):
                    connection.sendall(make(number))
                for connection in connections:
                    assert len(connection.recv(reply_bytes, socket.MSG_WAITALL)) == reply_bytes

    before = [calls_of(pid) for pid in pids]
    await asyncio.to_thread(ask)
    after = [calls_of(pid) for pid in pids]
    number = ROUNDS * clients
    of_each = [
        Calls((b.reads - a.reads) / number, (b.writes - a.writes) / number) for a, b in zip(before, after, strict=True)
    ]
    print(f"{clients} x {make.__name__}: {of_each}")
    return Cost(*of_each)


async def test_what_commands_cost(cluster: LocalCluster) -> None:
    """Of one client each step once; of many, what is not theirs alone is shared."""
    alone = await cost(cluster, 1, a_set, len(b"+OK\r\n"))
    # The leader reads the command and two acknowledgements, and is woken by its log's thread (a read and a write) if that wrote;
    # it writes two frames, the log and the reply. A follower reads a frame, writes the log and an acknowledgement.
    assert alone.leader.reads <= 4.4
    assert alone.leader.writes <= 5.4
    assert alone.follower.reads <= 2.4
    assert alone.follower.writes <= 3.4

    gathered = await cost(cluster, MANY, a_set, len(b"+OK\r\n"))
    assert gathered.leader.reads <= 2  # 1.15 where nothing else runs: its own command is read for each
    assert gathered.leader.writes <= 2.2
    assert gathered.follower.reads <= 0.6
    assert gathered.follower.writes <= 0.9

    for clients in (1, MANY):
        got = await cost(cluster, clients, a_get, len(b"$256\r\n\r\n") + 256)
        assert got.leader.reads <= 1.2  # the request; the record is in memory
        assert got.leader.writes <= 1.2
        assert max(got.follower) <= 0.2  # followers have nothing to do with it
