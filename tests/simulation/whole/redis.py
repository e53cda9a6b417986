"""Clients of the Redis doors: one that knows it is a cluster, at the nodes, and a plain one, at the routers.

Their commands are atomic groups and read-modify-write (`Service.transact`) on the keys of one slot, one at a time and in
pipelines; the history of each group is judged by `tests.support.redis_history`.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from kvnode.doors.redis import FOLLOWER_LAG
from tests.simulation.whole.client import CLOCKS, TIMEOUT, Client
from tests.support.history import Kind, Outcome, Result
from tests.support.redis_history import ANSWERS, READS, UNTOLD, Command, Refusal, Reply

if TYPE_CHECKING:
    from tests.simulation.whole.cluster import WholeCluster

REDIS = 6379
PATIENCE = 2.5  # seconds that a reply may take
Words = tuple[bytes, ...]


class Told(NamedTuple):
    """A reply and when it came."""

    reply: Reply | object
    at: float


LOST = Told(UNTOLD, 0.0)


class Wire(asyncio.Protocol):
    """One connection: commands out, replies matched in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._buffer = b""
        self._waiting: deque[asyncio.Future[Told]] = deque()
        self.transport: asyncio.Transport | None = None

    def send(self, commands: Sequence[Words]) -> list["asyncio.Future[Told]"]:
        """All in one write."""
        futures: list[asyncio.Future[Told]] = [self._loop.create_future() for _ in commands]
        self._waiting += futures
        if self.transport is None:
            self.connection_lost(None)
        else:
            self.transport.write(b"".join(map(_packed, commands)))
        return futures

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._buffer:
            reply, end = _parsed(self._buffer, 0)
            if end < 0:
                return
            self._buffer = self._buffer[end:]
            self._settle(Told(reply, self._loop.time()))

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        while self._waiting:
            self._settle(LOST)

    def abort(self) -> None:
        """Nobody waits for the replies that are yet to come."""
        if self.transport is not None:
            self.transport.abort()
        self.connection_lost(None)

    def _settle(self, told: Told) -> None:
        future = self._waiting.popleft()
        if not future.done():
            future.set_result(told)


def _is_unknown(reply: Reply | object) -> bool:
    return reply is UNTOLD or (isinstance(reply, Refusal) and reply.startswith("OUTCOMEUNKNOWN"))


def _is_refusal(reply: Reply | object) -> bool:
    """Whether it says that nothing was done."""
    return isinstance(reply, Refusal) and reply not in ANSWERS and not _is_unknown(reply)


def _packed(words: Words) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def _parsed(data: bytes, at: int) -> tuple[Reply, int]:
    """A reply and where it ends; -1 while it is not whole."""
    end = data.find(b"\r\n", at)
    if end < 0:
        return None, -1
    kind, head, at = data[at : at + 1], data[at + 1 : end], end + 2
    if kind == b"+":
        return head, at
    if kind == b"-":
        return Refusal(head.decode()), at
    if kind == b":":
        return int(head), at
    size = int(head)
    if size < 0:
        return None, at
    if kind == b"$":
        return (data[at : at + size], at + size + 2) if len(data) >= at + size + 2 else (None, -1)
    items: list[bytes | None] = []
    for _ in range(size):
        item, at = _parsed(data, at)
        if at < 0:
            return None, -1
        assert item is None or isinstance(item, bytes), f"an item of a list of strings is {item!r}"
        items.append(item)
    return tuple(items), at


class RedisClient(Client):
    """What both have in common. `read_only`: whether some of its reads go to followers, which may be behind."""

    read_only = False

    def __init__(self, cluster: "WholeCluster", number: int) -> None:
        super().__init__(cluster, number)
        self._wires: dict[tuple[str, bool], Wire] = {}

    def address(self, partition: int, *, stale: bool) -> str:
        """Where to send commands on keys of a partition; `stale`: any replica will do."""
        raise NotImplementedError

    def refused(self, partition: int, refusals: Sequence[str]) -> None:
        """Commands were refused, or nobody was reached."""
        raise NotImplementedError

    async def request(self) -> None:
        rng = self.rng
        stale = self.read_only and rng.random() < 0.2
        if rng.random() < 0.15:
            await self._look(rng.choice(self.cluster.keys), stale=stale)
            return
        group = rng.choice(list(self.cluster.groups))
        await self.do(group, list(self.commands(group, stale=stale)), stale=stale)

    def commands(self, group: bytes, *, stale: bool) -> Iterator[Words]:
        """What is asked in one write: as a rule one command, else a pipeline."""
        rng, keys = self.rng, self.cluster.groups[group]
        for place in range(rng.choice([1, 1, 1, 2, 3])):
            token = f"{self.number}.{self.sequence}.{place}".encode()
            yield _read(rng, keys) if stale or rng.random() < 0.35 else _write(rng, keys, token)

    async def read(self) -> None:
        """All keys of each group, however often it takes."""
        for group, keys in self.cluster.groups.items():
            while not await self.do(group, [(b"MGET", *keys)]):  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.1)

    async def do(self, group: bytes, words: Sequence[Words], *, stale: bool = False) -> bool:
        """Have commands of a group done, and write down what came of them; whether all have an answer."""
        since, told = await self._until_taken(words, stale=stale)
        history, before = self.cluster.redis_history, None
        for asked, (reply, at) in zip(words, told, strict=True):
            unknown = _is_unknown(reply)
            if _is_refusal(reply) or (unknown and asked[0] in READS):
                continue
            returned = None if unknown else at
            command = Command(
                self.number, group, asked, since, returned, UNTOLD if unknown else reply, before, self.name
            )
            before = history.record(command)
            self.served += not unknown
        return not any(isinstance(t.reply, Refusal) or t.reply is UNTOLD for t in told)

    async def _look(self, key: bytes, *, stale: bool) -> None:
        """Read a key that others write through other doors: its value alone is told."""
        since, ((reply, at),) = await self._until_taken([(b"GET", key)], stale=stale)
        if reply is None or isinstance(reply, bytes):
            found = Outcome(Result.NOT_FOUND) if reply is None else Outcome(Result.OK, None, reply)
            self.cluster.history.record(
                self.number, key, Kind.GET, invoked=since, returned=at, outcome=found, request=self.name
            )
            self.served += 1

    async def _until_taken(self, words: Sequence[Words], *, stale: bool) -> tuple[float, list[Told]]:
        """Send them until some are not refused, or for a while; and from when on the state may be that they show."""
        invoked, partition = self.loop.now, self.cluster.partition_of(words[0][1])
        asked = "; ".join(b" ".join(w).decode() for w in words) + (" (a follower may say)" if stale else "")
        self.note(f"asks ({self.name}): {asked}")
        told = [Told(Refusal("not sent"), invoked)] * len(words)
        while self.loop.now < invoked + TIMEOUT:
            told = await self._try(self.address(partition, stale=stale), words, stale=stale)
            refusals = [str(t.reply) for t in told if _is_refusal(t.reply)]
            if refusals:
                self.refused(partition, refusals)
            if len(refusals) < len(words):
                break
            await asyncio.sleep(0.05)
        self.note(
            f"told ({self.name}): {asked} -> {'; '.join('lost' if t.reply is UNTOLD else repr(t.reply) for t in told)}"
        )
        return (max(0.0, invoked - FOLLOWER_LAG * CLOCKS) if stale else invoked), told

    async def _try(self, address: str, words: Sequence[Words], *, stale: bool) -> list[Told]:
        wire = self._wires.get((address, stale))
        try:
            if wire is None or wire.transport is None:
                wire = await self._connected(address, stale=stale)
        except (OSError, TimeoutError) as e:
            return [Told(Refusal(f"not sent: {e}"), self.loop.now)] * len(words)
        futures = wire.send(words)
        await asyncio.wait(futures, timeout=PATIENCE)
        if not all(f.done() for f in futures):
            wire.abort()
        return [f.result() for f in futures]

    async def _connected(self, address: str, *, stale: bool) -> Wire:
        host, _, port = address.rpartition(":")
        async with asyncio.timeout(1.0):
            _, wire = await self.loop.create_connection(lambda: Wire(self.loop), host, int(port))
        if stale:
            wire.send([(b"READONLY",)])
        self._wires[address, stale] = wire
        return wire  # type: ignore[no-any-return]


class NodeRedisClient(RedisClient):
    """A client of Redis Cluster: any node to begin with, then where it is sent to; some reads by followers."""

    read_only = True

    def __init__(self, cluster: "WholeCluster", number: int) -> None:
        super().__init__(cluster, number)
        self._leaders: dict[int, str] = {}

    def address(self, partition: int, *, stale: bool) -> str:
        if stale:
            return f"{self.rng.choice(self.cluster.partitions[partition].pods)}:{REDIS}"
        if partition not in self._leaders or self.rng.random() < 0.05:
            return f"{self.rng.choice(list(self.cluster.machines))}:{REDIS}"
        return self._leaders[partition]

    def refused(self, partition: int, refusals: Sequence[str]) -> None:
        self._leaders.pop(partition, None)
        kind, _, rest = refusals[0].partition(" ")
        if kind == "MOVED":
            self._leaders[partition] = rest.split()[1]


class RouterRedisClient(RedisClient):
    """Any Redis client: a router looks like one plain server."""

    def address(self, partition: int, *, stale: bool) -> str:
        return f"{self.rng.choice(self.cluster.routers).name}:{REDIS}"

    def refused(self, partition: int, refusals: Sequence[str]) -> None:
        pass


class ReadsBack(RouterRedisClient):
    """Each of its writes, plain ones, has a read of the same keys right behind it: which may be done though the write was refused."""

    def commands(self, group: bytes, *, stale: bool) -> Iterator[Words]:
        assert not stale, "a router asks leaders"
        keys = self.cluster.groups[group]
        yield b"SET", self.rng.choice(keys[:-1]), f"{self.number}.{self.sequence}".encode()
        yield b"MGET", *keys


def _read(rng: Random, keys: Sequence[bytes]) -> Words:
    key = rng.choice(keys)
    return rng.choice([(b"GET", key), (b"MGET", *keys), (b"MGET", *keys), (b"EXISTS", *keys), (b"STRLEN", key)])


def _write(rng: Random, keys: Sequence[bytes], token: bytes) -> Words:
    """The last of the keys is mostly a counter."""
    *texts, counter = keys
    one, other = rng.sample(texts, 2)
    return rng.choice(
        [
            (b"SET", one, token),
            (b"SET", one, token),
            (b"SET", one, token, rng.choice([b"NX", b"XX"])),
            (b"GETSET", one, token),
            (b"GETDEL", one),
            (b"APPEND", one, token + b","),
            (b"APPEND", one, token + b","),
            (b"INCR", counter),
            (b"INCR", counter),
            (b"INCRBY", counter, b"%d" % rng.randint(-9, 9)),
            (b"SET", counter, b"%d" % rng.randint(0, 999)),
            (b"MSET", one, token, other, token),
            (b"MSETNX", one, token, other, token),
            (b"RENAME", one, other),
            (b"RENAMENX", one, other),
            (b"DEL", one, other),
            (b"DEL", rng.choice(keys)),
        ]
    )
