"""Clients: kvclient straight to the nodes, and a plain one, with pairs of its own, through the routers."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from random import Random
from typing import TYPE_CHECKING

from kvclient.aio import AsyncClient
from kvcoord.topology import topology_of
from kvproto.v1 import cluster_pb2, kv_pb2
from tests.simulation import schedule
from tests.simulation.timeline import Mark
from tests.simulation.whole.nodes import NodeProcess
from tests.simulation.whole.routers import GRPC, Frames, Router, engine_of
from tests.simulation.whole.world import Actor
from tests.support.doors import ClientDoor
from tests.support.history import FAILED, UNKNOWN, Kind, Outcome, Result
from tests.support.workload import Answer, Door

if TYPE_CHECKING:
    from tests.simulation.whole.cluster import WholeCluster

TIMEOUT = 4.0
MIX = (Kind.GET,) * 4 + (Kind.PUT,) * 3 + (Kind.CREATE, Kind.UPDATE, Kind.DELETE)


class Client:
    """One client, one operation at a time. Its n-th depends on the seed, its number and n alone."""

    def __init__(self, cluster: "WholeCluster", number: int) -> None:
        self.cluster, self.number = cluster, number
        self.loop = cluster.loop
        self.who = f"client {number}"
        self.actor = Actor(self.loop, self.who, f"client{number}")
        self.rng = self.loop.stream(self.who)
        self.think = self.rng.choice([0.02, 0.1, 0.3])
        self.versions: dict[bytes, int] = {}
        self.served = 0
        self.sequence = 0
        cluster.actors.append(self.actor)

    def start(self) -> None:
        self.actor.spawn(self._main(), "main")

    async def door(self) -> Door:
        """Its way to the cluster."""
        raise NotImplementedError

    async def _main(self) -> None:
        door = await self.door()
        given = self.cluster.options.requests
        if given is not None:
            for asked in [a for a in given if a.client == self.number]:
                await asyncio.sleep(max(0.0, asked.at - self.loop.now))
                await self._ask(door, asked.number)
            return
        number = 0
        while self.cluster.load:
            number += 1
            await asyncio.sleep(self.rng.random() * self.think * 2)
            await self._ask(door, number)

    async def _ask(self, door: Door, number: int) -> None:
        rng = self.rng = Random(f"{self.loop.seed} {self.who} request {number}")
        self.sequence = number
        self.cluster.asked.append(schedule.Asked(self.number, number, self.loop.now))
        kind, key = rng.choice(MIX), rng.choice(self.cluster.keys)
        value = None if kind in (Kind.GET, Kind.DELETE) else b"%d.%d" % (self.number, number)
        expected = None
        if kind not in (Kind.GET, Kind.CREATE) and rng.random() < 0.3:
            expected = rng.choice([self.versions.get(key, 0), self.versions.get(key, 0), 0])
        await self._do(door, kind, key, value, expected)

    async def _do(self, door: Door, kind: Kind, key: bytes, value: bytes | None, expected: int | None) -> Answer:
        invoked = self.loop.now
        condition = "" if expected is None else f" if version is {expected}"
        asks = f"{kind.value} {key.decode()}{'' if value is None else ' = ' + value.decode()}{condition}"
        self.loop.note(self.who, f"asks: {asks}", Mark.CLIENT)
        answer = await door.call(kind, key, value, expected)
        outcome = answer.outcome
        self.cluster.history.record(
            self.number,
            key,
            kind,
            invoked=invoked,
            returned=self.loop.now,
            outcome=outcome,
            value=value,
            expected_version=expected,
        )
        self.loop.note(self.who, f"told: {asks} -> {outcome} {answer.reason}", Mark.CLIENT)
        if outcome.version is not None:
            self.versions[key] = outcome.version
        if outcome.result not in (Result.UNKNOWN, Result.FAILED):
            self.served += 1
        return answer

    async def read(self, keys: Iterable[bytes]) -> None:
        """Each key, however often it takes."""
        door = await self.door()
        for key in keys:
            while (await self._do(door, Kind.GET, key, None, None)).outcome == FAILED:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.1)


class Polled:
    """A model of kvclient's topology over gRPC: what any node or router that is reached knows, asked now and then."""

    trouble = ""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._poked = asyncio.Event()

    def poke(self) -> None:
        self._poked.set()

    async def watch(self) -> AsyncIterator[cluster_pb2.Topology]:
        client, cluster = self._client, self._client.cluster
        rng = client.loop.stream(f"topology {client.who}")
        seen = None
        while True:
            servers: list[NodeProcess | Router] = [
                *(p for q in cluster.partitions for p in q.processes()),
                *cluster.routers,
            ]
            server = rng.choice(servers)
            net, host = client.loop.net, server.actor.host
            cut = net.is_cut(client.actor.host, host) or net.is_cut(host, client.actor.host)
            if not server.actor.paused and not cut:
                await asyncio.sleep(net.delay(client.actor.host, host) + net.delay(host, client.actor.host))
                topology = topology_of(server.watch.view)
                if topology.slots and topology != seen:
                    seen = topology
                    yield topology
            self._poked.clear()
            try:
                async with asyncio.timeout(0.2):
                    await self._poked.wait()
                    await asyncio.sleep(0.02)
            except TimeoutError:
                pass


class DirectClient(Client):
    """kvclient's AsyncClient as it is."""

    async def door(self) -> Door:
        engine = engine_of(Polled(self), self.loop.stream(f"engine {self.who}"), self.loop, session=True)
        engine.start()
        await engine.wait_for_map()
        return ClientDoor(AsyncClient(engine, timeout=TIMEOUT))


KINDS = {
    Kind.GET: kv_pb2.OPERATION_KIND_GET,
    Kind.PUT: kv_pb2.OPERATION_KIND_PUT,
    Kind.CREATE: kv_pb2.OPERATION_KIND_CREATE,
    Kind.UPDATE: kv_pb2.OPERATION_KIND_UPDATE,
    Kind.DELETE: kv_pb2.OPERATION_KIND_DELETE,
}
RESULTS = {
    kv_pb2.ERROR_CODE_NOT_FOUND: Result.NOT_FOUND,
    kv_pb2.ERROR_CODE_ALREADY_EXISTS: Result.ALREADY_EXISTS,
    kv_pb2.ERROR_CODE_VERSION_MISMATCH: Result.VERSION_MISMATCH,
}


class RouterClient(Client):
    """Any gRPC client: sends a batch of one to a router, and the same again, with its pair, when no answer comes."""

    async def door(self) -> Door:
        return self

    async def close(self) -> None:
        pass

    async def call(self, kind: Kind, key: bytes, value: bytes | None, expected: int | None) -> Answer:
        operation = kv_pb2.Operation(kind=KINDS[kind], key=key, value=value or b"")
        if expected is not None:
            operation.expected_version = expected
        client_id = self.number.to_bytes(16, "big") if kind is not Kind.GET else b""
        request = kv_pb2.BatchRequest(
            operations=[operation], client_id=client_id, sequence=self.sequence if client_id else 0
        )
        invoked, maybe, reason = self.loop.now, False, ""
        while (left := invoked + TIMEOUT - self.loop.now) > 0:
            request.timeout_ms = max(1, int(left * 1000))
            request.age_ms = int((self.loop.now - invoked) * 1000)
            response = await self._try(request, min(left, 1.5))
            if response is None:
                maybe = maybe or kind is not Kind.GET
                continue
            result = response.results[0]
            if result.HasField("record"):
                return Answer(
                    Outcome(Result.OK, result.record.version, result.record.value if kind is Kind.GET else None)
                )
            code, reason = result.error.code, result.error.message
            if code in RESULTS:
                found = result.error.found_version if code != kv_pb2.ERROR_CODE_NOT_FOUND else None
                return Answer(Outcome(RESULTS[code], found))
            maybe = maybe or code == kv_pb2.ERROR_CODE_OUTCOME_UNKNOWN
            await asyncio.sleep(0.05)
        return Answer(UNKNOWN if maybe else FAILED, reason)

    async def _try(self, request: kv_pb2.BatchRequest, seconds: float) -> kv_pb2.BatchResponse | None:
        """One try at one router; None: no answer."""
        answer: asyncio.Future[bytes | None] = self.loop.create_future()

        def settle(data: bytes | None = None) -> None:
            if not answer.done():
                answer.set_result(data)

        frames = Frames(lambda _, data: settle(data), settle)
        router = self.rng.choice(self.cluster.routers)
        try:
            async with asyncio.timeout(seconds):
                await self.loop.create_connection(lambda: frames, router.name, GRPC)
                frames.send(request.SerializeToString())
                data = await answer
        except (OSError, TimeoutError):
            return None
        finally:
            if frames.transport is not None:
                frames.transport.abort()
        return kv_pb2.BatchResponse.FromString(data) if data is not None else None
