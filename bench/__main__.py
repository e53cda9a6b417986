"""`python -m bench`: measure, print, and write what was measured."""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench import goals
from bench.chart import chart
from bench.compaction import compaction
from bench.cost import costs, scale
from bench.disturbed import disturbed
from bench.etcd import EtcdMissingError, etcd_cluster, etcd_version, find_etcd
from bench.failover import failovers
from bench.footprint import memory, starts
from bench.goals import goals_table
from bench.limits import limits
from bench.machine import Processors, this_machine
from bench.measure import Outcome, interleaved
from bench.native import build
from bench.native_series import Native, native_series, unary_series
from bench.ours import one_partition
from bench.plan import FULL, QUICK, Plan
from bench.redis_peer import RedisPy, find_redis, redis_server
from bench.report import as_json, markdown, put_into
from bench.sketch import sketch
from bench.steps import steps
from bench.throughput import all_batches, all_gets, all_puts, by_column, fill_all
from bench.unary_ways import UnaryWays, unary_ways
from kvcommon.server import loop_factory

DOCUMENT = Path(__file__).parent.parent / "docs" / "benchmarks.md"
CHART = DOCUMENT.with_name("benchmarks.svg")
NAMES = (
    "limits", "puts", "gets", "batches", "native", "unary", "disturbed", "cost", "steps", "scale", "failover", "memory",
    "start", "compaction",
)  # fmt: skip
TITLES = {"puts": goals.PYTHON_PUTS, "gets": goals.PYTHON_GETS, "batches": goals.BATCHES}
WITH_CLUSTERS = (*TITLES, "native", "unary")

MUCH_STOLEN = 0.05
Say = Callable[[str], None]


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, for CI; not for quoting")
    parser.add_argument("--only", action="append", choices=NAMES, help="measure this; may be given again")
    parser.add_argument("--without-etcd", action="store_true", help="leave the peer out")
    parser.add_argument("--rounds", type=int, help="rounds of each series")
    parser.add_argument("--seconds", type=float, help="of each series in each round")
    parser.add_argument(
        "--asyncio-loop", action="store_true", help="asyncio's own event loop in the application, not uvloop"
    )
    parser.add_argument("--dir", type=Path, help="where the data is, for the file system that is to be measured")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--write-docs", action="store_true", help=f"put the tables into {DOCUMENT.name}")
    return parser.parse_args(argv)


async def throughput(names: Sequence[str], folder: Path, plan: Plan, say: Say, into: list[Outcome]) -> None:
    """Everything that is measured beside the peers, with all of them up."""
    if not set(names) & set(WITH_CLUSTERS):
        return
    async with AsyncExitStack() as stack:
        doors = await stack.enter_async_context(one_partition(folder / "ours"))
        etcd = await stack.enter_async_context(etcd_cluster(folder / "etcd")) if plan.with_etcd else None
        redis_port = await stack.enter_async_context(redis_server(folder / "redis")) if find_redis() else None
        redis = RedisPy(redis_port) if redis_port else None
        if redis:
            stack.push_async_callback(redis.close)
        await fill_all(doors, etcd, redis, plan)
        for name in [name for name in TITLES if name in names]:
            series = {"puts": all_puts, "gets": all_gets, "batches": all_batches}[name](doors, etcd, redis, plan)
            into += await interleaved(TITLES[name], series, plan.rounds, say)
        unary = await stack.enter_async_context(unary_ways(doors, folder, say)) if "unary" in names else UnaryWays()
        native = Native(
            doors,
            doors.cluster.port(doors.leader, "redis"),
            (doors.cluster.router_address, *unary.routers),
            await build(folder),
            etcd.address if etcd else None,
            redis_port,
            await stack.enter_async_context(sketch(folder / "sketch")),
            unary.others,
            unary.bare,
        )
        for name, title, operation, make in NATIVE:
            if name in names:
                series = by_column(make(native, plan, operation))
                into += await interleaved(title, series, plan.rounds, say)


NATIVE = (
    ("native", goals.NATIVE_PUTS, "put", native_series),
    ("native", goals.NATIVE_GETS, "get", native_series),
    ("unary", goals.UNARY_PUTS, "put", unary_series),
    ("unary", goals.UNARY_GETS, "get", unary_series),
)


async def measure(names: Sequence[str], folder: Path, plan: Plan, say: Say, into: list[Outcome]) -> None:
    """All that was asked for, in the table's order; `into` keeps what was measured should the rest be interrupted."""
    if "limits" in names:
        into += await limits(folder, plan, say)
    await throughput(names, folder, plan, say, into)
    if "steps" in names:
        into += steps(folder, plan, say)
    for name, one in (
        ("disturbed", disturbed),
        ("cost", costs),
        ("scale", scale),
        ("failover", failovers),
        ("memory", memory),
        ("start", starts),
        ("compaction", compaction),
    ):
        if name in names:
            (folder / name).mkdir()
            into += await one(folder / name, plan, say)


def panels(outcomes: Sequence[Outcome]) -> list[tuple[str, list[Outcome]]]:
    """What the chart shows."""
    wanted = (
        (goals.PYTHON_PUTS, "128 tasks"),
        (goals.PYTHON_GETS, "128 tasks"),
        (goals.NATIVE_PUTS, "128 callers"),
        (goals.NATIVE_GETS, "128 callers"),
        (goals.BATCHES, "32 tasks"),
    )
    return [
        (f"{group}, {column}: per second", [o for o in outcomes if (o.group, o.column) == (group, column)])
        for group, column in wanted
    ]


def plan_of(arguments: argparse.Namespace) -> Plan:
    plan = QUICK if arguments.quick else FULL
    if arguments.rounds:
        plan = replace(plan, rounds=arguments.rounds)
    if arguments.seconds:
        plan = replace(plan, seconds=arguments.seconds)
    return replace(plan, with_etcd=not arguments.without_etcd)


def facts_of(plan: Plan, arguments: argparse.Namespace) -> dict[str, str]:
    loop = "asyncio's own" if arguments.asyncio_loop else "uvloop"
    facts = {
        "KVCluster": version("kvcluster"),
        "grpcio": version("grpcio"),
        "Event loop of the application": loop,
        "Rounds": f"{plan.rounds} of {plan.seconds:g} s each; median (lowest-highest)",
    }
    if plan.with_etcd:
        facts["etcd"] = f"{etcd_version(find_etcd())}, three members, default fsync"
    if redis := find_redis():
        said = subprocess.run([redis, "--version"], capture_output=True, text=True, check=True).stdout
        facts["Redis"] = f"{said.split('v=')[1].split()[0]}, one server, appendfsync always"
    return facts


def main() -> None:
    arguments = parse(sys.argv[1:])
    plan, names = plan_of(arguments), arguments.only or NAMES
    factory = asyncio.new_event_loop if arguments.asyncio_loop else loop_factory()
    try:
        facts = facts_of(plan, arguments)
    except EtcdMissingError as error:
        sys.exit(str(error))
    with (
        tempfile.TemporaryDirectory(prefix="kvbench-", dir=arguments.dir) as folder,
        asyncio.Runner(loop_factory=factory) as runner,
    ):
        facts["Load average of the last minute before the run"] = f"{os.getloadavg()[0]:.1f}"
        machine = this_machine(Path(folder), datetime.now(UTC).date())
        if os.getloadavg()[0] > machine.cores / 2:
            print(f"load average is {os.getloadavg()[0]:.1f}: others use this machine, the figures will be too low\n")
        outcomes: list[Outcome] = []
        failed, processors = False, Processors()
        try:
            runner.run(measure(names, Path(folder), plan, lambda line: print(line, flush=True), outcomes))
        except KeyboardInterrupt:
            print("interrupted: what follows was measured before")
        except Exception:  # what was measured before is not lost with it
            traceback.print_exc()
            failed = True
    facts["Processor time that this machine wanted and its host gave to others"] = f"{processors.stolen:.0%}"
    if processors.stolen > MUCH_STOLEN:
        print(
            f"the host gave {processors.stolen:.0%} of the processors to others: waking a process up took long, the figures are too low"
        )
    text = markdown(outcomes, machine, facts, goals_table(outcomes))
    print("\n" + text)
    if arguments.json:
        arguments.json.write_text(as_json(outcomes, machine, facts))
    if arguments.write_docs:
        put_into(DOCUMENT, text)
        CHART.write_text(chart(panels(outcomes)))
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
