"""Clients of the API: kvclient straight to the nodes, and a plain one, with pairs of its own, through the routers."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from kvclient.aio import AsyncClient
from kvclient.operations import Operation, ReadMode, Record
from kvcommon.errors import KVClusterError
from kvcoord.topology import topology_of
from kvproto.v1 import cluster_pb2, kv_pb2
from tests.simulation.whole.client import CLOCKS, TIMEOUT, Client
from tests.simulation.whole.nodes import NodeProcess
from tests.simulation.whole.routers import GRPC, Frames, Router, engine_of
from tests.support.doors import ClientDoor, answer_of, refusal_of
from tests.support.history import FAILED, UNKNOWN, Kind, Outcome, Result
from tests.support.sessions import StaleRead
from tests.support.workload import Answer

if TYPE_CHECKING:
    from tests.simulation.whole.cluster import WholeCluster

MIX = (Kind.GET,) * 4 + (Kind.PUT,) * 3 + (Kind.CREATE, Kind.UPDATE, Kind.DELETE)


@dataclass(frozen=True, slots=True)
class Freshness:
    """How old a read may be: its mode, and with BOUNDED the lag in seconds."""

    mode: ReadMode = ReadMode.LINEARIZABLE
    lag: float | None = None

    def since(self, now: float) -> float:
        """The state that is read is none from before this time."""
        if self.mode is ReadMode.LINEARIZABLE:
            return now
        return 0.0 if self.lag is None else max(0.0, now - self.lag * CLOCKS)

    def __str__(self) -> str:
        bound = "" if self.lag is None else f" within {self.lag} s"
        return "" if self.mode is ReadMode.LINEARIZABLE else f" ({self.mode.name.lower()}{bound})"


NOW = Freshness()
STALE = (
    Freshness(ReadMode.ANY),
    Freshness(ReadMode.BOUNDED, 0.2),
    Freshness(ReadMode.BOUNDED, 1.0),
    Freshness(ReadMode.BOUNDED, 3.0),
)


class Ask(NamedTuple):
    """One operation that a client wants done."""

    kind: Kind
    key: bytes
    value: bytes | None
    expected: int | None

    def __str__(self) -> str:
        value = "" if self.value is None else f" = {self.value.decode()}"
        condition = "" if self.expected is None else f" if version is {self.expected}"
        return f"{self.kind.value} {self.key.decode()}{value}{condition}"


class KeyClient(Client):
    """A client of the API's operations, single and in batches; its stale reads are a session's, which never go back."""

    def __init__(self, cluster: "WholeCluster", number: int) -> None:
        super().__init__(cluster, number)
        self.versions: dict[bytes, int] = {}
        self.session = Session()

    async def call(self, asks: Sequence[Ask], fresh: Freshness) -> list[Answer]:
        """Do them; nothing is raised."""
        raise NotImplementedError

    def _observed(self, asks: Sequence[Ask]) -> dict[int, int]:
        """Which versions, by partition, its next reads must not be older than."""
        return dict(self.session.observed)

    async def request(self) -> None:
        rng = self.rng
        count = rng.choice([1, 1, 1, 2, 3, 5])
        fresh = rng.choice(STALE) if rng.random() < 0.25 else NOW
        await self.do([self._choose(i, reads=fresh is not NOW) for i in range(count)], fresh)

    def _choose(self, place: int, *, reads: bool) -> Ask:
        rng = self.rng
        kind, key = Kind.GET if reads else rng.choice(MIX), rng.choice(self.cluster.keys)
        value = None if kind in (Kind.GET, Kind.DELETE) else b"%d.%d.%d" % (self.number, self.sequence, place)
        expected = None
        if kind not in (Kind.GET, Kind.CREATE) and rng.random() < 0.3:
            expected = rng.choice([self.versions.get(key, 0), self.versions.get(key, 0), 0])
        return Ask(kind, key, value, expected)

    async def do(self, asks: Sequence[Ask], fresh: Freshness) -> list[Answer]:
        """Have them done, and write down what came of it."""
        invoked, partition_of = self.loop.now, self.cluster.partition_of
        observed = self._observed(asks)
        asked = f"{', '.join(map(str, asks))}{fresh}"
        self.note(f"asks ({self.name}): {asked}")
        answers = await self.call(asks, fresh)
        self.note(f"told ({self.name}): {asked} -> {'; '.join(f'{a.outcome} {a.reason}'.strip() for a in answers)}")
        for ask, answer in zip(asks, answers, strict=True):
            outcome, partition = answer.outcome, partition_of(ask.key)
            operation = self.cluster.history.record(
                self.number,
                ask.key,
                ask.kind,
                invoked=fresh.since(invoked),
                returned=self.loop.now,
                outcome=outcome,
                value=ask.value,
                expected_version=ask.expected,
                request=self.name,
            )
            if fresh is not NOW:
                self.cluster.stale_reads.append(StaleRead(operation, observed.get(partition, 0)))
            if outcome.version is not None:
                self.versions[ask.key] = outcome.version
            if outcome.result is Result.OK and outcome.version:
                self.session.saw(partition, outcome.version)
            self.served += outcome.result not in (Result.UNKNOWN, Result.FAILED)
        return answers

    async def read(self, keys: Iterable[bytes]) -> None:
        """Each key, however often it takes."""
        await self.prepare()
        for key in keys:
            while (await self.do([Ask(Kind.GET, key, None, None)], NOW))[0].outcome == FAILED:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.1)


@dataclass
class Session:
    """The highest version that a client was told, of each partition."""

    observed: dict[int, int] = field(default_factory=dict)

    def saw(self, partition: int, version: int) -> None:
        self.observed[partition] = max(version, self.observed.get(partition, 0))


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
            if server.actor.alive and not server.actor.paused and not cut:
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


class DirectClient(KeyClient):
    """kvclient's AsyncClient as it is."""

    _client: AsyncClient

    async def prepare(self) -> None:
        engine = engine_of(Polled(self), self.loop.stream(f"engine {self.who}"), self.loop, session=True)
        self.cluster.writers[engine.client_id] = self.number
        engine.start()
        await engine.wait_for_map()
        self._client = AsyncClient(engine, timeout=TIMEOUT)

    async def call(self, asks: Sequence[Ask], fresh: Freshness) -> list[Answer]:
        if len(asks) == 1:
            ask = asks[0]
            if ask.kind is not Kind.GET or fresh is NOW:
                return [await ClientDoor(self._client).call(*ask)]
            return [await answer_of(self._stale(ask.key, fresh))]
        operations = [Operation(KINDS[a.kind], a.key, a.value or b"", a.expected) for a in asks]
        results = await self._client.batch(operations, read_mode=fresh.mode, max_lag=fresh.lag)
        return [_answer(ask, result) for ask, result in zip(asks, results, strict=True)]

    async def _stale(self, key: bytes, fresh: Freshness) -> Outcome:
        record = await self._client.get(key, read_mode=fresh.mode, max_lag=fresh.lag)
        return Outcome(Result.OK, record.version, record.value) if record else Outcome(Result.NOT_FOUND)


class Newcomers(DirectClient):
    """One after the other, each to read all keys from any replicas: they have observed nothing yet."""

    def __init__(self, cluster: "WholeCluster", number: int) -> None:
        super().__init__(cluster, number)
        self.think = 0.05

    async def prepare(self) -> None:
        """Each does so by itself."""

    async def request(self) -> None:
        await super().prepare()
        self.session = Session()
        await self.do([Ask(Kind.GET, key, None, None) for key in self.cluster.keys], Freshness(ReadMode.ANY))
        await self._client.close()


def _answer(ask: Ask, result: Record | KVClusterError) -> Answer:
    if isinstance(result, KVClusterError):
        return refusal_of(result)
    return Answer(Outcome(Result.OK, result.version, result.value if ask.kind is Kind.GET else None))


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


def _is_certain(answer: Answer) -> bool:
    return answer.outcome.result not in (Result.UNKNOWN, Result.FAILED)


class RouterClient(KeyClient):
    """Any gRPC client: sends a batch to a router, and the same again, with its pair, when no answer comes."""

    async def call(self, asks: Sequence[Ask], fresh: Freshness) -> list[Answer]:
        writes = any(ask.kind is not Kind.GET for ask in asks)
        request = self._batch(asks, fresh, writes=writes)
        invoked, maybe = self.loop.now, False
        answers = [Answer(FAILED, "no answer in time")] * len(asks)
        while (left := invoked + TIMEOUT - self.loop.now) > 0 and not all(map(_is_certain, answers)):
            request.timeout_ms = max(1, int(left * 1000))
            request.age_ms = int((self.loop.now - invoked) * 1000)
            response = await self._try(request, min(left, 1.5))
            if response is None:
                maybe = maybe or writes
                continue
            told = [self._answer(ask, result) for ask, result in zip(asks, response.results, strict=True)]
            answers = [before if _is_certain(before) else now for before, now in zip(answers, told, strict=True)]
            maybe = maybe or any(a.outcome == UNKNOWN for a in told)
            await asyncio.sleep(0.0 if all(map(_is_certain, answers)) else 0.05)
        return [self._in_doubt(ask, answer) if maybe else answer for ask, answer in zip(asks, answers, strict=True)]

    @staticmethod
    def _in_doubt(ask: Ask, answer: Answer) -> Answer:
        """A refusal of the last try says nothing of the tries before it."""
        if answer.outcome == FAILED and ask.kind is not Kind.GET:
            return Answer(UNKNOWN, answer.reason)
        return answer

    def _batch(self, asks: Sequence[Ask], fresh: Freshness, *, writes: bool) -> kv_pb2.BatchRequest:
        request = kv_pb2.BatchRequest(read_mode=fresh.mode.value, max_lag_ms=int((fresh.lag or 0) * 1000))
        for ask in asks:
            operation = request.operations.add(kind=KINDS[ask.kind], key=ask.key, value=ask.value or b"")
            if ask.expected is not None:
                operation.expected_version = ask.expected
        if writes:
            request.client_id, request.sequence = self.number.to_bytes(16, "big"), self.sequence
            self.cluster.writers[request.client_id] = self.number
        if fresh is not NOW:
            request.observed_version = max(self._observed(asks).values(), default=0)
        return request

    def _observed(self, asks: Sequence[Ask]) -> dict[int, int]:
        """One version can be told with a batch: the first key's partition's."""
        partition = self.cluster.partition_of(asks[0].key)
        return {partition: self.session.observed.get(partition, 0)}

    @staticmethod
    def _answer(ask: Ask, result: kv_pb2.Result) -> Answer:
        if result.HasField("record"):
            record = result.record
            return Answer(Outcome(Result.OK, record.version, record.value if ask.kind is Kind.GET else None))
        code, reason = result.error.code, result.error.message
        if code in RESULTS:
            found = result.error.found_version if code != kv_pb2.ERROR_CODE_NOT_FOUND else None
            return Answer(Outcome(RESULTS[code], found))
        unknown = code == kv_pb2.ERROR_CODE_OUTCOME_UNKNOWN and ask.kind is not Kind.GET
        return Answer(UNKNOWN if unknown else FAILED, reason)

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
