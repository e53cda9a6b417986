"""Native clients: the Redis protocol by redis-benchmark, gRPC by Go; ours beside Redis and etcd."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.measure import Sample, Series
from bench.native import native_load
from bench.ours import Doors
from bench.plan import Plan
from bench.redis_peer import redis_benchmark

KEYS = 6400  # what redis-benchmark chooses from; as many as the Python load's
PIPELINE = 16
SKETCH_ROW = "the sketch: replicated and synced, nothing more"
EACH_ETCD = "etcd, its own client (Go), a connection each"  # as many as a client of the Redis protocol has


@dataclass(frozen=True, slots=True)
class Native:
    """What native clients go to; None: not on this machine."""

    doors: Doors
    our_redis: int  # port of the leader's Redis door
    routers: tuple[str, ...]
    program: Path | None  # the Go client
    etcd: str | None
    redis: int | None
    sketch: int | None = None
    others: tuple[tuple[str, str], ...] = ()  # name and address of other ways to the cluster
    bare: tuple[tuple[str, str], ...] = ()  # name and address of servers with nothing behind them


def _redis(to: Native, plan: Plan, command: str, unit: str) -> list[Series]:
    series: list[Series] = []
    peers = (("KVCluster, Redis door", to.our_redis), ("Redis, one server", to.redis), (SKETCH_ROW, to.sketch))
    ports = [(row, port) for row, port in peers if port is not None]
    for row, port in ports:
        go = partial(redis_benchmark, port, command, seconds=plan.seconds, value_bytes=plan.value_bytes, keys=KEYS)
        series += [Series(row, _callers(n), unit, partial(go, n)) for n in plan.tasks]
        series.append(
            Series(row, f"{plan.tasks[-1]}, 16 at a time", unit, partial(go, plan.tasks[-1], pipeline=PIPELINE))
        )
    return series


def _grpc(to: Native, plan: Plan, operation: str, rows: Sequence[tuple[str, str, tuple[str, ...]]]) -> list[Series]:
    if to.program is None:
        return []
    shape = {"seconds": plan.seconds, "keys": plan.keys_per_task, "value_bytes": plan.value_bytes}

    def one(target: str, addresses: tuple[str, ...], callers: int) -> Callable[[], Awaitable[Sample]]:
        assert to.program is not None
        return partial(native_load, to.program, target, operation, callers, addresses, **shape)

    unit = f"{operation}s/s"
    return [Series(row, _callers(n), unit, one(target, at, n)) for row, target, at in rows for n in plan.tasks]


def native_series(to: Native, plan: Plan, operation: str) -> list[Series]:
    """Single commands: Redis's protocol, and etcd by its own client."""
    series = _redis(to, plan, "set" if operation == "put" else "get", f"{operation}s/s")
    if to.etcd:
        rows = [("etcd, its own client (Go)", "etcd", (to.etcd,)), (EACH_ETCD, "etcd-each", (to.etcd,))]
        series += _grpc(to, plan, operation, rows)
    return series


def unary_series(to: Native, plan: Plan, operation: str) -> list[Series]:
    """One gRPC call per operation, from Go."""
    rows = [("KVCluster, one router", "kvcluster", to.routers[:1])]
    if len(to.routers) > 1:
        rows.append((f"KVCluster, {len(to.routers)} routers", "kvcluster", to.routers))
    rows += [(name, "kvcluster", (address,)) for name, address in to.others]
    rows.append(("KVCluster, straight to the leader", "kvcluster", (to.doors.leader_address,)))
    if operation == "get":
        rows += [(name, "kvcluster", (address,)) for name, address in to.bare]
    return _grpc(to, plan, operation, rows)


def _callers(number: int) -> str:
    return f"{number} caller" + "s" * (number != 1)
