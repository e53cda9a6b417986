"""How calls become batches: the engine over a transport of lists."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from kvclient import AsyncClient, Operation, ReadMode, Record
from kvclient.operations import LINEARIZABLE
from kvproto.pipeline import decode_answer, encode_records, encode_request, encode_series
from kvproto.v1 import kv_pb2
from tests.unit.kvclient.list_transport import GivenSource, ListTransport, engine_over, topology, turns


class Bench:
    """A client, its transport, and what it was asked."""

    def __init__(self, client: AsyncClient, transport: ListTransport, source: GivenSource) -> None:
        self.client, self.transport, self.source = client, transport, source
        self.calls: list[asyncio.Task[Any]] = []

    def call(self, *calls: Coroutine[Any, Any, Any]) -> None:
        self.calls += [asyncio.ensure_future(call) for call in calls]

    def put(self, count: int, *, size: int = 1, prefix: bytes = b"k") -> None:
        self.call(*(self.client.put(b"%s%d" % (prefix, i), bytes(size)) for i in range(count)))

    def get(self, count: int) -> None:
        self.call(*(self.client.get(b"k%d" % i) for i in range(count)))

    async def know_sizes(self) -> None:
        """Let the client see how large an answer's records are."""
        self.get(1)
        await turns()
        self.transport.stream.answer(value=b"v")

    @property
    def counts(self) -> list[int]:
        """Operations of each batch that waits for its answer."""
        return [len(request.operations) for request in self.transport.stream.sent]

    async def settle(self) -> list[Any]:
        """Answer everything."""
        while not all(call.done() for call in self.calls):
            await turns()
            while self.transport.stream.sent:
                self.transport.stream.answer()
        return [call.result() for call in self.calls]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    transport, source = ListTransport(), GivenSource()
    engine = await engine_over(transport, source)
    yield Bench(AsyncClient(engine), transport, source)
    await engine.close()


async def test_a_single_call_is_sent_at_once(bench: Bench) -> None:
    bench.put(1)
    await turns()
    assert bench.counts == [1]


async def test_calls_of_one_turn_of_the_loop_are_one_batch(bench: Bench) -> None:
    bench.put(16)
    await turns()
    assert bench.counts == [16]


async def test_many_writes_go_together(bench: Bench) -> None:
    """A log batch costs the same, however many are in it."""
    bench.put(100)
    await turns()
    assert bench.counts == [100]
    await bench.settle()


async def test_many_reads_are_shared_out_among_the_batches_that_may_be_under_way(bench: Bench) -> None:
    """While the server is at one, the client is at another; whoever comes later gets half of all again."""
    await bench.know_sizes()
    bench.get(100)
    await turns()
    assert bench.counts == [50, 50]
    bench.get(20)
    bench.transport.stream.answer(value=b"v")
    await turns()
    assert bench.counts == [50, 20]
    bench.get(60)
    bench.transport.stream.answer(value=b"v")
    await turns()
    assert bench.counts == [20, 40], "of 20 under way and 60 that wait"
    await bench.settle()


async def test_calls_made_while_enough_is_under_way_wait_and_are_gathered(bench: Bench) -> None:
    for _ in range(5):
        bench.put(10)
        await turns()
    assert bench.counts == [10, 10]
    bench.transport.stream.answer()
    await turns()
    assert bench.counts == [10, 30]
    await bench.settle()


async def test_a_batch_has_at_most_1000_operations(bench: Bench) -> None:
    bench.put(2100)
    await turns()
    assert bench.counts == [1000, 1000]
    bench.transport.stream.answer()
    await turns()
    assert bench.counts == [1000, 100]
    await bench.settle()


async def test_more_batches_are_under_way_while_enough_waits_to_fill_another(bench: Bench) -> None:
    """The server's disks are at one, its processors at another; what is left over waits for an answer."""
    bench.put(7100)
    await turns()
    assert bench.counts == [1000] * 6
    bench.transport.stream.answer()
    await turns()
    assert bench.counts == [1000] * 6, "1,100 waited"
    bench.transport.stream.answer()
    await turns()
    assert bench.counts == [1000] * 5, "100 are worth no batch of their own"
    bench.put(156, prefix=b"more")
    await turns()
    assert bench.counts == [1000] * 5 + [256]
    await bench.settle()


async def test_a_batch_has_at_most_4_mib(bench: Bench) -> None:
    bench.put(10, size=1 << 20)
    await turns()
    assert bench.counts == [3, 3], "a fourth would be more than 4 MiB with its key"
    assert all(len(encode_request(request)) <= 4 << 20 for request in bench.transport.stream.sent)
    await bench.settle()


async def test_reads_are_gathered_by_the_size_of_their_answers(bench: Bench) -> None:
    bench.call(bench.client.get(b"first"))
    await turns()
    bench.transport.stream.answer(value=bytes(1 << 20))
    bench.call(*(bench.client.get(b"%d" % i) for i in range(20)))
    await turns()
    assert bench.counts == [3, 3]
    bench.transport.stream.answer(value=bytes(1 << 20))
    await turns()
    assert bench.counts == [3, 3], "they are as large when several come together"
    bench.transport.stream.answer(value=b"small")
    await turns()
    assert bench.counts == [3, 11], "many small ones"
    await bench.settle()


async def test_reads_and_writes_and_kinds_of_reads_travel_apart(bench: Bench) -> None:
    bench.put(3)
    bench.call(*(bench.client.get(b"%d" % i) for i in range(4)))
    bench.call(*(bench.client.get(b"%d" % i, read_mode=ReadMode.BOUNDED, max_lag=0.2) for i in range(5)))
    await turns()
    sent = [request for stream in bench.transport.streams for request in stream.sent]
    assert sorted(len(request.operations) for request in sent) == [3, 4, 5]
    assert [bool(request.client_id) for request in sorted(sent, key=lambda r: len(r.operations))] == [
        True,
        False,
        False,
    ]


async def test_every_write_batch_has_its_own_sequence_of_one_client(bench: Bench) -> None:
    for _ in range(2):
        bench.put(1)
        await turns()
    first, second = bench.transport.stream.sent
    assert first.client_id == second.client_id
    assert len(first.client_id) == 16
    assert (first.sequence, second.sequence) == (1, 2)
    assert 0 < first.timeout_ms <= 10_000
    await bench.settle()


async def test_groups_travel_together_and_whole(bench: Bench) -> None:
    for group in range(3):
        bench.call(bench.client.batch([Operation.put(b"%d-%d" % (group, i), b"") for i in range(400)]))
    await turns()
    assert bench.counts == [800, 400]
    await bench.settle()


@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_batch_is_answered_in_its_order_however_many_partitions_it_goes_to(
    bench: Bench, partitions: int
) -> None:
    """By frames, whose results are columns: reads with values, and writes with versions that follow each other."""
    bench.source.said.put_nowait(topology(epoch=2, partitions=partitions))
    await turns()
    keys = [b"k%d" % i for i in range(20)]
    bench.call(bench.client.batch([Operation.get(key) for key in keys]))
    bench.call(bench.client.batch([Operation.put(key, b"v") for key in keys]))
    await turns()
    stream = bench.transport.stream
    written: dict[bytes, int] = {}
    assert len(stream.sent) == 2 * partitions
    for number, request in enumerate(stream.sent):
        asked = [operation[1] for operation in request.operations]
        versions = range(100 * number, 100 * number + len(asked))
        if request.sequence:
            written.update(zip(asked, versions, strict=True))
            answer = encode_series(request.id, versions[0], len(asked))
        else:
            answer = encode_records(request.id, [int(key[1:]) for key in asked], [b"of " + key for key in asked])
        stream.receiver.answered(*decode_answer(answer[6:]))
    got, put = await asyncio.gather(*bench.calls)
    assert got == [Record(key, b"of " + key, int(key[1:])) for key in keys]
    assert put == [Record(key, b"", written[key]) for key in keys]
    assert {type(record) for record in (*got, *put)} == {Record}
    assert bench.client._engine.observed() == max(written.values())


async def test_a_callers_own_pair_travels_alone(bench: Bench) -> None:
    operations = [Operation.put(b"a", b"")] * 2
    deadline = asyncio.get_running_loop().time() + 5
    for sequence in (77, 78):
        pair = (b"c" * 16, sequence)
        bench.call(bench.client.run_batch(operations, LINEARIZABLE, deadline=deadline, pair=pair, age=1.5))
    bench.put(3)
    await turns()
    sent = list(bench.transport.stream.sent)
    bench.transport.stream.answer()
    await turns()
    sent.append(bench.transport.stream.sent[-1])
    assert [(r.sequence, len(r.operations)) for r in sent] == [(77, 2), (78, 2), (1, 3)]
    assert [r.client_id == b"c" * 16 for r in sent] == [True, True, False]
    assert all(r.age_ms >= 1500 for r in sent[:2])
    await bench.settle()


async def test_a_new_leader_gets_everything_unanswered_in_order_and_the_old_stream_is_closed(bench: Bench) -> None:
    for i in range(3):
        bench.put(2, prefix=b"%d-" % i)
        await turns()
    old = bench.transport.stream
    bench.source.said.put_nowait(topology(epoch=2, leader="b"))
    await turns()
    assert old.closed
    assert bench.transport.stream.address == "b:1"
    assert [r.sequence for r in bench.transport.stream.sent] == [1, 2]
    await bench.settle()


async def test_an_answer_of_a_stream_that_was_left_is_not_heard(bench: Bench) -> None:
    bench.put(1)
    await turns()
    old = bench.transport.stream
    bench.source.said.put_nowait(topology(epoch=2, leader="b"))
    await turns()
    old.answer()
    await turns()
    assert not bench.calls[0].done()
    await bench.settle()


async def test_a_topology_that_changes_nothing_for_a_partition_disturbs_nothing(bench: Bench) -> None:
    bench.put(1)
    await turns()
    bench.source.said.put_nowait(topology(epoch=2, leader="a"))
    await turns()
    assert len(bench.transport.streams) == 1
    assert bench.counts == [1]
    await bench.settle()


async def test_a_server_whose_clock_is_behind_is_asked_again_without_the_observed_version(bench: Bench) -> None:
    engine = bench.client._engine
    engine.observe(1, 999)  # of another partition
    bench.put(1)
    await turns()
    assert bench.transport.stream.sent[0].observed_version == 999
    bench.transport.stream.answer(error=kv_pb2.Error(code=kv_pb2.ERROR_CODE_INVALID_ARGUMENT, message="ahead"))
    await turns()
    assert bench.transport.stream.sent[0].observed_version == 0
    await bench.settle()


async def test_an_answer_with_too_few_results_is_no_answer(bench: Bench) -> None:
    bench.put(2)
    await turns()
    stream = bench.transport.stream
    request = stream.sent.pop()
    stream.receiver.answered(request.id, [(1, b"", None)])
    await asyncio.sleep(0.03)
    assert [r.sequence for r in stream.sent] == [request.sequence]
    await bench.settle()


async def test_everything_is_released_in_the_end(bench: Bench) -> None:
    bench.put(500)
    bench.call(bench.client.batch([Operation.put(b"g%d" % i, b"") for i in range(100)]))
    await turns()
    assert bench.client._engine.under_way == 600
    await bench.settle()
    assert bench.client._engine.under_way == 0
    assert bench.client._engine._bytes == 0
