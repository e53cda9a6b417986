"""Where the Python time of an operation goes: each step by itself, in batches of 64, hot; the best of many tries."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from bench.measure import Outcome, Sample
from kvcommon.slotmap import SlotMap
from kvcommon.slots import slot_of
from kvcommon.versions import EPOCH_MS
from kvnode.core.messages import Append
from kvnode.core.types import Batch, Position
from kvnode.doors.pipeline import PipelineDoor
from kvnode.operations import Kind, Operation
from kvnode.shell import wire
from kvproto import pipeline
from kvstore.applier import Applier
from kvstore.batch import RecordType, encode_batch, read_header
from kvstore.incoming import BEGINNING, split
from kvstore.index.hash import HashIndex
from kvstore.log import LogBatch
from kvstore.sessions import Sessions
from kvstore.store import Store, StoreOptions

OPERATIONS = 64
TRIES, CALLS = 40, 25


def _best(step: Callable[[], object]) -> float:
    """Seconds of CPU of one call."""
    best = float("inf")
    for _ in range(TRIES):
        began = time.process_time()
        for _ in range(CALLS):
            step()
        best = min(best, time.process_time() - began)
    return best / CALLS


class _Collecting:
    """Stands for the service behind a door."""

    def __init__(self) -> None:
        self.request: Any = None

    def submit(self, request: Any, _answer: Any) -> None:
        self.request = request


class _Clock:
    def now(self) -> float:
        return 1.0

    def wall_ms(self) -> int:
        return EPOCH_MS + 1


def steps(folder: Path, plan: Any, say: Callable[[str], None]) -> list[Outcome]:
    """Microseconds per operation of each step, for puts and gets."""
    value = os.urandom(plan.value_bytes)
    keys = [b"%06d/%09d" % (n, n) for n in range(OPERATIONS)]
    puts: list[Operation] = [(Kind.PUT, key, value, None) for key in keys]
    records = [(int(RecordType.PUT), key, value, 1 << 40, 0) for key in keys]
    request = pipeline.Request(puts, id=1, client_id=bytes(16), sequence=1)
    sent = pipeline.encode_request(request)[6:]
    collecting = _Collecting()
    door = PipelineDoor(cast("Any", collecting), _Clock(), cast("Any", None))
    data = encode_batch(1, 1, 0, records)
    header = read_header(data)
    appended = Append(1, 1, Position(0, 0), 0, (Batch(1, 1, OPERATIONS, data),), 0, leased=True)
    framed = wire.encode(appended)
    written: list[pipeline.ResultTuple] = [(1 << 40, b"", None)] * OPERATIONS
    found: list[pipeline.ResultTuple] = [(1 << 40, value, None)] * OPERATIONS
    done, read = (pipeline.encode_answer(1, r)[6:] for r in (written, found))
    owners = SlotMap.even(1).owners

    def fold() -> None:
        applier = Applier(HashIndex(), Sessions())
        applier.add(LogBatch(header, data, segment=0, offset=0))
        applier.apply(header.last)

    store = Store.open(folder / "store", cluster_id="bench", partition=0, options=StoreOptions(durability="memory"))
    with store:
        store.append(data, trusted=True)
        store.flush()
        store.commit(OPERATIONS)
        rows: list[tuple[str, str, Callable[[], object]]] = [
            ("put", "client: the request's frame", lambda: pipeline.encode_request(request)),
            ("put", "leader: read the request", lambda: door.submit(pipeline.decode_request(sent), 0, print)),
            ("put", "leader: the log batch, checksums", lambda: encode_batch(1, 1, 0, records)),
            ("put", "leader: append", lambda: split(data, BEGINNING, trusted=True)),
            ("put", "leader: the followers' frame", lambda: wire.encode(appended)),
            ("put", "follower: read the frame", lambda: wire.Decoder().feed(framed)),
            ("put", "follower: check and append", lambda: split(data, BEGINNING, trusted=False)),
            ("put", "each: apply to the index", fold),
            ("put", "leader: the answer's frame", lambda: pipeline.encode_answer(1, written)),
            ("put", "client: read the answer", lambda: pipeline.decode_answer(done)),
            ("get", "leader: read from the log's file", lambda: [store.get(key) for key in keys]),
            ("get", "leader: the answer's frame", lambda: pipeline.encode_answer(1, found)),
            ("get", "client: read the answer", lambda: pipeline.decode_answer(read)),
            ("both", "a key's slot and owner", lambda: [owners[slot] for slot in map(slot_of, keys)]),
        ]
        outcomes = []
        for column, row, step in rows:
            took = _best(step) / OPERATIONS * 1e6
            say(f"{row} ({column}): {took:.3f} us")
            outcomes.append(Outcome("Python time by step, batches of 64", row, column, "us/operation", [Sample(took)]))
    return outcomes
