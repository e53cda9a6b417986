"""Puts, gets and batches of 256 bytes, ours beside etcd's, by tasks of one asyncio application."""

import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from bench import ours
from bench.etcd import EtcdClient
from bench.measure import Sample, Series, load
from bench.plan import Plan
from bench.redis_peer import RedisPy

BATCH = 100
BATCH_TASKS = (1, 8, 32)
LOAD_BATCH = 100  # etcd takes 128 at most

Put = Callable[[bytes, bytes], Awaitable[object]]
Get = Callable[[bytes], Awaitable[object]]
PutMany = Callable[[Sequence[tuple[bytes, bytes]]], Awaitable[object]]


def key_of(task: int, count: int, keys: int) -> bytes:
    """16 bytes."""
    return b"%06d/%09d" % (task, count % keys)


def put_series(row: str, put: Put, plan: Plan) -> list[Series]:
    """One per number of tasks."""
    value = os.urandom(plan.value_bytes)

    def measure(tasks: int) -> Awaitable[Sample]:
        return load(tasks, plan.seconds, lambda task, count: put(key_of(task, count, plan.keys_per_task), value))

    return [Series(row, _tasks(n), "puts/s", partial(measure, n)) for n in plan.tasks]


def get_series(row: str, get: Get, plan: Plan) -> list[Series]:
    """One per number of tasks; the keys must be there."""

    def measure(tasks: int) -> Awaitable[Sample]:
        return load(tasks, plan.seconds, lambda task, count: get(key_of(task, count, plan.keys_per_task)))

    return [Series(row, _tasks(n), "gets/s", partial(measure, n)) for n in plan.tasks]


def batch_series(row: str, put_many: PutMany, plan: Plan) -> list[Series]:
    """Batches of 100 puts."""
    value = os.urandom(plan.value_bytes)
    pairs = [[(key_of(task, i, BATCH), value) for i in range(BATCH)] for task in range(max(BATCH_TASKS))]

    def measure(tasks: int) -> Awaitable[Sample]:
        return load(tasks, plan.seconds, lambda task, _count: put_many(pairs[task]), weight=BATCH)

    return [Series(row, _tasks(n), "puts/s", partial(measure, n)) for n in BATCH_TASKS]


async def fill(put_many: PutMany, plan: Plan) -> None:
    """Write every key that the gets will ask for."""
    value = os.urandom(plan.value_bytes)
    keys = [key_of(task, i, plan.keys_per_task) for task in range(max(plan.tasks)) for i in range(plan.keys_per_task)]
    for at in range(0, len(keys), LOAD_BATCH):
        await put_many([(key, value) for key in keys[at : at + LOAD_BATCH]])


def _tasks(number: int) -> str:
    return f"{number} task" + "s" * (number != 1)


def by_column(series: Sequence[Series]) -> list[Series]:
    """Those with the same number of tasks beside each other, so that they are measured right after one another."""
    columns = list(dict.fromkeys(s.column for s in series))
    return sorted(series, key=lambda s: columns.index(s.column))


def all_puts(doors: ours.Doors, etcd: EtcdClient | None, redis: RedisPy | None, plan: Plan) -> list[Series]:
    """Every way to put."""
    series = put_series("KVCluster, kvclient", doors.direct.put, plan)
    series += put_series("KVCluster, kvclient through the router", doors.routed.put, plan)
    series += put_series("KVCluster, unary gRPC through the router", ours.unary_put(doors.unary), plan)
    if etcd:
        series += put_series("etcd, grpc.aio", etcd.put_one, plan)
    if redis:
        series += put_series("Redis, redis-py", redis.put, plan)
    return by_column(series)


def all_gets(doors: ours.Doors, etcd: EtcdClient | None, redis: RedisPy | None, plan: Plan) -> list[Series]:
    """Every way to get, linearizably."""
    series = get_series("KVCluster, kvclient", doors.direct.get, plan)
    series += get_series("KVCluster, kvclient through the router", doors.routed.get, plan)
    series += get_series("KVCluster, unary gRPC through the router", ours.unary_get(doors.unary), plan)
    if etcd:
        series += get_series("etcd, grpc.aio", etcd.get_one, plan)
    if redis:
        series += get_series("Redis, redis-py", redis.get, plan)
    return by_column(series)


def all_batches(doors: ours.Doors, etcd: EtcdClient | None, redis: RedisPy | None, plan: Plan) -> list[Series]:
    """Every way to put a hundred at once."""
    series = batch_series("KVCluster, kvclient batch", partial(ours.put_many, doors.direct), plan)
    series += batch_series("KVCluster, kvclient batch through the router", partial(ours.put_many, doors.routed), plan)
    if etcd:
        series += batch_series("etcd, grpc.aio, transaction", etcd.put_many, plan)
    if redis:
        series += batch_series("Redis, redis-py, MSET", redis.put_many, plan)
    return by_column(series)


async def fill_all(doors: ours.Doors, etcd: EtcdClient | None, redis: RedisPy | None, plan: Plan) -> None:
    """Keys for the gets, in all."""
    await fill(partial(ours.put_many, doors.direct), plan)
    if etcd:
        await fill(etcd.put_many, plan)
    if redis:
        await fill(redis.put_many, plan)
