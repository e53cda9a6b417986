"""The demonstration: a few keys, then a leader killed under load, told as it is seen."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, pairwise

from kvclient import AsyncClient
from kvcommon.errors import KVClusterError
from kvcommon.slotmap import SlotMap
from kvcommon.slots import slot_of
from kvlocal.cluster import LocalCluster
from kvlocal.screen import Screen

FRUIT = {b"apple": b"red", b"banana": b"yellow", b"plum": b"blue"}
WRITERS = 4
PAUSE = 0.005  # seconds between one writer's writes
BEFORE = 1.0  # seconds of load before the kill
AFTER = 1.0  # and once everything is as it was


@dataclass
class Load:
    """Writers to one partition, and what they were told."""

    client: AsyncClient
    keys: Iterator[bytes]
    acknowledged: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)  # value and version
    times: list[float] = field(default_factory=list)  # of acknowledgements
    failures: list[str] = field(default_factory=list)

    async def write(self) -> None:
        """Write new keys until cancelled."""
        while True:
            key = next(self.keys)
            value = b"value of " + key
            try:
                version = await self.client.put(key, value)
            except KVClusterError as error:
                self.failures.append(str(error))
            else:
                self.acknowledged[key] = value, version
                self.times.append(time.monotonic())
            await asyncio.sleep(PAUSE)

    async def lost(self) -> list[bytes]:
        """Acknowledged writes that can't be read back as they were."""
        keys = list(self.acknowledged)
        records = await asyncio.gather(*(self.client.get(key) for key in keys))
        return [
            key
            for key, record in zip(keys, records, strict=True)
            if record is None or (record.value, record.version) != self.acknowledged[key]
        ]


def longest_pause(times: list[float], since: float) -> float:
    """The longest time between two acknowledgements, of which the later one came after `since`; seconds."""
    return max((after - before for before, after in pairwise(times) if after > since), default=0.0)


def keys_of(partition: int, slot_map: SlotMap, prefix: str) -> Iterator[bytes]:
    """Ever new keys that one partition owns."""
    for number in count(1):
        key = f"{prefix}-{number}".encode()
        if slot_map.owners[slot_of(key)] == partition:
            yield key


@contextmanager
def _running(load: Load) -> Iterator[None]:
    tasks = [asyncio.create_task(load.write()) for _ in range(WRITERS)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


async def demonstrate(cluster: LocalCluster, screen: Screen) -> bool:
    """Show it; whether every acknowledged write was there afterwards."""
    slot_map = SlotMap.even(cluster.shape.partitions)
    async with await AsyncClient.connect(cluster.router_address, mode="router") as client:
        await _fruit(client, slot_map, screen)
        partition = slot_map.owners[slot_of(b"apple")]
        load = Load(client, keys_of(partition, slot_map, f"demo-{time.time_ns()}"))
        with _running(load):
            await asyncio.sleep(BEFORE)
            killed = await _kill(cluster, partition, load, screen)
            await asyncio.sleep(AFTER)
        return await _judge(load, killed, screen)


async def _fruit(client: AsyncClient, slot_map: SlotMap, screen: Screen) -> None:
    rows = []
    for key, value in FRUIT.items():
        await client.put(key, value)
        record = await client.get(key)
        assert record is not None
        partition = slot_map.owners[slot_of(key)]
        rows.append((key.decode(), record.value.decode(), str(partition), str(record.version)))
    screen.table(("PUT AND GOT", "VALUE", "PARTITION", "VERSION"), rows)
    screen.line()


async def _kill(cluster: LocalCluster, partition: int, load: Load, screen: Screen) -> float:
    """Kill the partition's leader, wait for the next one, start the old one again; when it was killed."""
    before = await cluster.state(partition)
    assert before.leader is not None
    victim = before.leader.replica.pod
    screen.said(f"{WRITERS} tasks write to partition {partition}, which {victim} leads in epoch {before.epoch}")
    killed = time.monotonic()
    await cluster.kill(victim, hold=True)
    screen.said(f"killed {victim} (SIGKILL)")
    leader, epoch = await cluster.wait_leader(partition, before.epoch)
    screen.said(f"{leader} leads in epoch {epoch}, {time.monotonic() - killed:.1f} s after the kill")
    acknowledged = len(load.times)
    await _until(lambda: len(load.times) > acknowledged)
    cluster.restart(victim)
    took = await cluster.wait_in_sync(partition)
    screen.said(f"{victim} started again, in sync {took:.1f} s later")
    return killed


async def _until(true: Callable[[], bool], timeout: float = 30.0) -> None:
    async with asyncio.timeout(timeout):
        while not true():  # noqa: ASYNC110 - a person watches: 10 ms are no matter
            await asyncio.sleep(0.01)


async def _judge(load: Load, killed: float, screen: Screen) -> bool:
    screen.said(f"writes to the partition paused for {longest_pause(load.times, killed):.1f} s; {_failures(load)}")
    lost = await load.lost()
    if lost:
        screen.said(f"LOST {len(lost)} of {len(load.acknowledged)} acknowledged writes, {lost[0].decode()} for one")
        return False
    screen.said(f"all {len(load.acknowledged):,} acknowledged writes are there")
    return True


def _failures(load: Load) -> str:
    if not load.failures:
        return "none failed, they waited"
    return f"{len(load.failures)} failed: {load.failures[0]}"
