"""Where the Python time of an operation goes: each step by itself, in batches of 64, hot; the best of many tries."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from bench.measure import Outcome, Sample
from kvcommon.slotmap import SlotMap
from kvcommon.versions import EPOCH_MS
from kvnode.core.messages import Append
from kvnode.core.types import Batch, Position
from kvnode.doors.pipeline import PipelineDoor
from kvnode.operations import Kind
from kvnode.requests import what_is_invalid
from kvnode.shell import wire
from kvproto import pipeline
from kvstore.applier import Applier
from kvstore.batch import read_header
from kvstore.incoming import BEGINNING, split
from kvstore.index.hash import HashIndex
from kvstore.log import LogBatch
from kvstore.making import BatchMaker
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


def _made(keys: Sequence[bytes], values: Sequence[bytes]) -> BatchMaker:
    made = BatchMaker(1, 1, 0)
    made.put_all(keys, values, 1 << 40)
    return made


def steps(folder: Path, plan: Any, say: Callable[[str], None]) -> list[Outcome]:
    """Microseconds per operation of each step, for puts and gets."""
    value = os.urandom(plan.value_bytes)
    keys = [b"%06d/%09d" % (n, n) for n in range(OPERATIONS)]
    values = [value] * OPERATIONS
    request = pipeline.Request(pipeline.Columns(Kind.PUT, keys, values), id=1, client_id=bytes(16), sequence=1)
    sent = pipeline.encode_request(request)[6:]
    collecting = _Collecting()
    door = PipelineDoor(cast("Any", collecting), _Clock(), cast("Any", None))
    made = _made(keys, values)
    data, known = made.seal(), made.folded
    header = read_header(data)
    appended = Append(1, 1, Position(0, 0), 0, (Batch(1, 1, OPERATIONS, data),), 0, leased=True)
    framed = wire.encode(appended)
    versions = range(1 << 40, (1 << 40) + OPERATIONS)
    done = pipeline.encode_series(1, versions[0], OPERATIONS)[6:]
    read = pipeline.encode_records(1, versions, values)[6:]
    slot_map = SlotMap.even(3)
    applier = Applier(HashIndex(), Sessions())

    def fold() -> None:
        applier.applied = 0
        applier.add(LogBatch(header, data, segment=0, offset=0), known)
        applier.apply(header.last)

    def store_in(name: str, **options: Any) -> Store:
        chosen = StoreOptions(durability="memory", **options)
        store = Store.open(folder / name, cluster_id="bench", partition=0, options=chosen)
        store.append(data, trusted=True)
        store.flush()
        store.commit(OPERATIONS)
        return store

    with store_in("store") as store, store_in("uncached", record_cache_bytes=0) as uncached:
        rows: list[tuple[str, str, Callable[[], object]]] = [
            ("put", "client: the request's frame", lambda: pipeline.encode_request(request)),
            ("put", "leader: read the request", lambda: door.submit(pipeline.decode_request(sent), 0, print)),
            ("put", "leader: what is wrong with it", lambda: what_is_invalid(request.operations)),
            ("put", "leader: the log batch, checksums", lambda: _made(keys, values).seal()),
            ("put", "leader: append", lambda: split(data, BEGINNING, trusted=True, known=known)),
            ("put", "leader: the followers' frame", lambda: wire.encode(appended)),
            ("put", "follower: read the frame", lambda: wire.Decoder().feed(framed)),
            ("put", "follower: check and append", lambda: split(data, BEGINNING, trusted=False)),
            ("put", "each: apply to the index", fold),
            ("put", "leader: the answer's frame", lambda: pipeline.encode_series(1, versions[0], OPERATIONS)),
            ("put", "client: read the answer", lambda: pipeline.decode_answer(done)),
            ("get", "leader: read from the log's file", lambda: [uncached.get(key) for key in keys]),
            ("get", "leader: read from memory", lambda: [store.get(key) for key in keys]),
            ("get", "leader: the answer's frame", lambda: pipeline.encode_records(1, versions, values)),
            ("get", "client: read the answer", lambda: pipeline.decode_answer(read)),
            ("both", "a key's slot and owner", lambda: slot_map.owners_of(keys)),
        ]
        outcomes = []
        for column, row, step in rows:
            took = _best(step) / OPERATIONS * 1e6
            say(f"{row} ({column}): {took:.3f} us")
            outcomes.append(Outcome("Python time by step, batches of 64", row, column, "us/operation", [Sample(took)]))
    return outcomes
