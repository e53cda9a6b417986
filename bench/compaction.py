"""What compaction costs those who read and write meanwhile: the store alone, with the node's threads."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from statistics import quantiles

from bench.measure import Outcome, Sample
from bench.plan import Plan
from kvstore.batch import RecordType, encode_batch
from kvstore.store import Store, StoreOptions

BATCH = 16
SEGMENT_BYTES = 16 << 20
COMPACTING_ROUNDS = 3  # times as long as at rest
GROUP = "Store while its log is compacted"


class Client:
    """Writes batches of puts over and over the same keys, one after the other, and reads as many keys between."""

    def __init__(self, store: Store, plan: Plan) -> None:
        self.store = store
        self.random = Random(1)
        self.keys = [b"%016d" % i for i in range(min(plan.keys, 200_000))]
        self.value = bytes(plan.value_bytes)
        self.puts: list[float] = []
        self.gets: list[float] = []

    def write(self, keys: list[bytes]) -> None:
        """Append one batch."""
        store, first = self.store, self.store.end.index + 1
        records = [(RecordType.PUT, key, self.value, first + i, 0) for i, key in enumerate(keys)]
        store.append(encode_batch(1, first, store.applied, records), trusted=True)

    async def round(self, flusher: ThreadPoolExecutor) -> None:
        """A batch made durable and visible, then its keys read."""
        keys = self.random.sample(self.keys, BATCH)
        began = time.perf_counter()
        self.write(keys)
        durable = await asyncio.get_running_loop().run_in_executor(flusher, self.store.flush)
        self.store.commit(durable.index)
        self.puts.append(time.perf_counter() - began)
        for key in keys:
            began = time.perf_counter()
            self.store.get(key)
            self.gets.append(time.perf_counter() - began)

    def outcomes(self, column: str, say: Callable[[str], None]) -> list[Outcome]:
        """Percentiles since the last time, in milliseconds."""
        found = []
        for row, times in ((f"batch of {BATCH} puts, durable", self.puts), ("get", self.gets)):
            cuts = quantiles(times, n=1000)
            for name, at in (("p50", 500), ("p99", 990), ("p99.9", 999)):
                found.append(Outcome(GROUP, f"{row}, {name}", column, "ms", [Sample(cuts[at - 1] * 1000)]))
            say(f"{row}, {column}: " + ", ".join(f"{o.row[-5:].strip(' ,')} {o.median:.3f} ms" for o in found[-3:]))
            times.clear()
        return found


def _compact(store: Store, enough: threading.Event) -> None:
    """Compact on and on, as what is written meanwhile makes new garbage."""
    while not enough.is_set() and store.maintain():
        pass
    enough.set()


async def compaction(folder: Path, plan: Plan, say: Callable[[str], None]) -> list[Outcome]:
    """Latencies of writes and reads without compaction, and while it runs at the rate that is the default."""
    options = StoreOptions(segment_bytes=SEGMENT_BYTES)
    with (
        Store.open(folder / "store", cluster_id="bench", partition=0, options=options) as store,
        ThreadPoolExecutor(1) as flusher,
        ThreadPoolExecutor(1) as worker,
    ):
        client = Client(store, plan)
        for _ in range(3):  # two thirds of the log are garbage
            for at in range(0, len(client.keys), 1000):
                client.write(client.keys[at : at + 1000])
                store.commit(store.flush().index)
        until = time.monotonic() + plan.seconds * plan.rounds
        while time.monotonic() < until:
            await client.round(flusher)
        outcomes = client.outcomes("at rest", say)
        before, enough = store.log_bytes, threading.Event()
        working = worker.submit(_compact, store, enough)
        began = time.monotonic()
        while not enough.is_set() and time.monotonic() - began < COMPACTING_ROUNDS * plan.seconds * plan.rounds:
            await client.round(flusher)
        enough.set()
        working.result()
        took = time.monotonic() - began
        outcomes += client.outcomes("compacting", say)
        say(
            f"{store.progress.compactions} compactions in {took:.1f} s: {before >> 20} MiB, now {store.log_bytes >> 20}"
        )
    return outcomes
