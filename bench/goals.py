"""What is aimed at, as ratios within one run, and what came of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.footprint import STARTS
from bench.measure import Outcome
from bench.report import number

PYTHON_PUTS, PYTHON_GETS = (
    "Puts of 256 B, Python application",
    "Linearizable gets of 256 B (cached), Python application",
)
BATCHES = "Batches of 100 puts of 256 B"
NATIVE_PUTS, NATIVE_GETS = "Puts of 256 B, native clients", "Linearizable gets of 256 B (cached), native clients"
UNARY_PUTS, UNARY_GETS = "Unary gRPC from Go: puts", "Unary gRPC from Go: linearizable gets"
MEMORY = "Memory of a node"
_DOOR, _ETCD, _ETCD_NATIVE = "KVCluster, Redis door", "etcd, grpc.aio", "etcd, its own client (Go)"
_ETCD_EACH = f"{_ETCD_NATIVE}, a connection each"
_CLIENT, _REDIS, _REDIS_PY = "KVCluster, kvclient", "Redis, one server", "Redis, redis-py"
_ROUTER = "KVCluster, one router"

Cell = tuple[str, str, str]
"""Group, row, column."""


@dataclass(frozen=True, slots=True)
class Goal:
    """`cell` over `other` (None: `cell` itself) is to be at least (or at most) `goal`; None: it only helps to judge the row above."""

    text: str
    cell: Cell
    other: Cell | None
    goal: float | None
    at_most: bool = False
    latency: bool = False  # of medians of latencies, not of rates


GOALS: Sequence[Goal] = (
    Goal("Redis door, 128 connections: puts over etcd's, its own client, 128 connections", (NATIVE_PUTS, _DOOR, "128 callers"), (NATIVE_PUTS, _ETCD_EACH, "128 callers"), 5),
    Goal("beside it: over etcd's, all callers on one connection", (NATIVE_PUTS, _DOOR, "128 callers"), (NATIVE_PUTS, _ETCD_NATIVE, "128 callers"), None),
    Goal("Redis door, 128 connections: gets over etcd's linearizable gets, 128 connections", (NATIVE_GETS, _DOOR, "128 callers"), (NATIVE_GETS, _ETCD_EACH, "128 callers"), 7),
    Goal("beside it: over etcd's, all callers on one connection", (NATIVE_GETS, _DOOR, "128 callers"), (NATIVE_GETS, _ETCD_NATIVE, "128 callers"), None),
    Goal("beside it: Redis's own gets over etcd's, 128 connections", (NATIVE_GETS, _REDIS, "128 callers"), (NATIVE_GETS, _ETCD_EACH, "128 callers"), None),
    Goal("beside it: Redis's own gets over etcd's, all callers on one connection", (NATIVE_GETS, _REDIS, "128 callers"), (NATIVE_GETS, _ETCD_NATIVE, "128 callers"), None),
    Goal("Redis door, 128 connections: gets over Redis's", (NATIVE_GETS, _DOOR, "128 callers"), (NATIVE_GETS, _REDIS, "128 callers"), 0.8),
    Goal("one caller: put's p50 over etcd's (native clients)", (NATIVE_PUTS, _DOOR, "1 caller"), (NATIVE_PUTS, _ETCD_NATIVE, "1 caller"), 0.6, at_most=True, latency=True),
    Goal("128 Python tasks: puts over etcd's through Python", (PYTHON_PUTS, _CLIENT, "128 tasks"), (PYTHON_PUTS, _ETCD, "128 tasks"), 10),
    Goal("128 Python tasks: gets over redis-py's", (PYTHON_GETS, _CLIENT, "128 tasks"), (PYTHON_GETS, _REDIS_PY, "128 tasks"), 8),
    Goal("one Python task: get's p50 over redis-py's", (PYTHON_GETS, _CLIENT, "1 task"), (PYTHON_GETS, _REDIS_PY, "1 task"), 1.2, at_most=True, latency=True),
    Goal("batches of 100, 32 tasks: puts over etcd's transactions of 100", (BATCHES, "KVCluster, kvclient batch", "32 tasks"), (BATCHES, "etcd, grpc.aio, transaction", "32 tasks"), 4),
    Goal("the same, 8 tasks", (BATCHES, "KVCluster, kvclient batch", "8 tasks"), (BATCHES, "etcd, grpc.aio, transaction", "8 tasks"), 4),
    Goal("unary gRPC through the router, 32 callers: puts over etcd's", (UNARY_PUTS, _ROUTER, "32 callers"), (NATIVE_PUTS, _ETCD_NATIVE, "32 callers"), 0.5),
    Goal("the same, 128 callers", (UNARY_PUTS, _ROUTER, "128 callers"), (NATIVE_PUTS, _ETCD_NATIVE, "128 callers"), 0.5),
    Goal("unary gRPC through the router, 32 callers: gets over etcd's", (UNARY_GETS, _ROUTER, "32 callers"), (NATIVE_GETS, _ETCD_NATIVE, "32 callers"), 0.5),
    Goal("the same, 128 callers", (UNARY_GETS, _ROUTER, "128 callers"), (NATIVE_GETS, _ETCD_NATIVE, "128 callers"), 0.5),
    Goal("seconds from a kill to serving with a million keys, each written three times", (STARTS, "a killed node with 1,000,000 keys, each written 3 times", "found again"), None, 3, at_most=True),
    Goal("MiB per million keys, leader", (MEMORY, "per million keys, over idle", "leader"), None, 200, at_most=True),
)  # fmt: skip


def reached(goal: Goal, outcomes: Sequence[Outcome]) -> float | None:
    """The ratio, or None when not both were measured."""
    of: Callable[[Outcome], float | None] = (lambda o: o.p50) if goal.latency else (lambda o: o.median)

    def value(cell: Cell) -> float | None:
        group, row, column = cell
        found = [o for o in outcomes if o.group == group and o.row.startswith(row) and o.column == column]
        exact = [o for o in found if o.row == row] or found
        return of(exact[0]) if exact else None

    ours = value(goal.cell)
    other = 1.0 if goal.other is None else value(goal.other)
    return None if ours is None or not other else ours / other


def goals_table(outcomes: Sequence[Outcome]) -> str:
    """Markdown; empty when nothing of it was measured."""
    lines = ["| | goal | reached | |", "|---|---|---|---|"]
    for goal in GOALS:
        ratio = reached(goal, outcomes)
        if ratio is None:
            continue
        if goal.goal is None:
            lines.append(f"| {goal.text} | | {number(ratio)} | |")
        else:
            met = ratio <= goal.goal if goal.at_most else ratio >= goal.goal
            sign = "at most" if goal.at_most else "at least"
            lines.append(f"| {goal.text} | {sign} {goal.goal:g} | **{number(ratio)}** | {'met' if met else 'missed'} |")
    return "\n".join(lines) if len(lines) > 2 else ""
