"""What a unary call costs the router's gRPC server, counted and not timed: function calls, writes to the socket.

The bounds are what was counted when they were written, and a tenth more; docs/benchmarks.md has the times.
"""

from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from kvclient.aio import AsyncClient
from kvclient.operations import ReadProfile
from kvclient.units import Call
from kvcommon.clock import SystemClock
from kvproto.v1 import kv_pb2
from kvrouter.direct import DirectKeyValue
from kvrouter.door import KeyValueDoor
from kvrouter.metrics import RouterMetrics
from kvrouter.rpc.connection import Methods
from tests.support.calls import Calls
from tests.support.rpc_pair import Pair, framed

CALLS = 64
IN, OUT = 57, 10.2


class Engine:
    """Takes operations, and answers them when told."""

    def __init__(self) -> None:
        self.taken: list[Call] = []

    def run_call(self, call: Call, _profile: ReadProfile | None) -> Any:
        self.taken.append(call)
        return call.future

    def answer(self) -> None:
        for call in self.taken:
            call.future.set_result((1 << 40, bytes(256), None))
        self.taken.clear()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (b"/kvcluster.v1.KeyValue/Get", kv_pb2.GetRequest(key=b"k" * 16)),
        (b"/kvcluster.v1.KeyValue/Put", kv_pb2.PutRequest(key=b"k" * 16, value=bytes(256))),
    ],
)
async def test_a_unary_calls_function_calls_and_writes(method: bytes, message: Any) -> None:
    engine = Engine()
    door = KeyValueDoor(cast("AsyncClient", engine), SystemClock(), RouterMetrics(CollectorRegistry()))
    methods = Methods(1 << 20)
    methods.direct.update({path.encode(): begin for path, begin in DirectKeyValue(door).methods().items()})
    pair = Pair(methods)
    for _ in range(2):  # the first time fills caches and HPACK's tables
        streams = [pair.call(method, framed(message.SerializeToString())) for _ in range(CALLS)]
        sent, writes = pair.client.data_to_send(), pair.writes
        with Calls() as taken:
            pair.server.data_received(sent)
        with Calls() as answered:
            engine.answer()
        await pair.settle(2)
    assert {pair.status(stream) for stream in streams} == {0}
    assert pair.writes - writes <= 2, "one of answers, one of windows at most"
    assert taken.count / CALLS <= IN
    assert answered.count / CALLS <= OUT
