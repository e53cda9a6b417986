"""`python -m bench`: measure, print, and write what was measured."""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.compaction import compaction
from bench.etcd import EtcdMissingError, etcd_cluster, etcd_version, find_etcd
from bench.failover import failovers
from bench.footprint import memory, starts
from bench.limits import limits
from bench.machine import this_machine
from bench.measure import Outcome, interleaved
from bench.ours import one_partition
from bench.plan import FULL, QUICK, Plan
from bench.report import as_json, markdown, put_into
from bench.throughput import all_batches, all_gets, all_puts, fill_all
from kvcommon.server import loop_factory

DOCUMENT = Path(__file__).parent.parent / "docs" / "benchmarks.md"
NAMES = ("limits", "puts", "gets", "batches", "failover", "memory", "start", "compaction")
TITLES = {"puts": "Puts of 256 B", "gets": "Linearizable gets of 256 B", "batches": "Batches of 100 puts of 256 B"}
GOAL = 5.0  # times etcd's puts through Python at 128 tasks

Say = Callable[[str], None]


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, for CI; not for quoting")
    parser.add_argument("--only", action="append", choices=NAMES, help="measure this; may be given again")
    parser.add_argument("--without-etcd", action="store_true", help="leave the peer out")
    parser.add_argument("--rounds", type=int, help="rounds of each series")
    parser.add_argument(
        "--asyncio-loop", action="store_true", help="asyncio's own event loop in the application, not uvloop"
    )
    parser.add_argument("--dir", type=Path, help="where the data is, for the file system that is to be measured")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--write-docs", action="store_true", help=f"put the tables into {DOCUMENT.name}")
    return parser.parse_args(argv)


async def throughput(names: Sequence[str], folder: Path, plan: Plan, say: Say) -> list[Outcome]:
    """Puts, gets and batches, with both clusters up."""
    outcomes: list[Outcome] = []
    wanted = [name for name in TITLES if name in names]
    if not wanted:
        return outcomes
    async with AsyncExitStack() as stack:
        doors = await stack.enter_async_context(one_partition(folder / "ours"))
        etcd = await stack.enter_async_context(etcd_cluster(folder / "etcd")) if plan.with_etcd else None
        await fill_all(doors, etcd, plan)
        for name in wanted:
            series = {"puts": all_puts, "gets": all_gets, "batches": all_batches}[name](doors, etcd, plan)
            outcomes += await interleaved(TITLES[name], series, plan.rounds, say)
    return outcomes


async def measure(names: Sequence[str], folder: Path, plan: Plan, say: Say, into: list[Outcome]) -> None:
    """All that was asked for, in the table's order; `into` keeps what was measured should the rest be interrupted."""
    if "limits" in names:
        into += await limits(folder, plan, say)
    into += await throughput(names, folder, plan, say)
    for name, one in (("failover", failovers), ("memory", memory), ("start", starts), ("compaction", compaction)):
        if name in names:
            (folder / name).mkdir()
            into += await one(folder / name, plan, say)


def verdict(outcomes: Sequence[Outcome]) -> str:
    """Ours beside etcd's puts at 128 tasks; empty when not both were measured."""
    puts = {o.row: o.median for o in outcomes if o.group == TITLES["puts"] and o.column == "128 tasks"}
    ours, etcd = puts.get("KVCluster, kvclient"), puts.get("etcd, grpc.aio")
    if not ours or not etcd:
        return ""
    return f"{ours / etcd:.1f} times etcd's puts through Python at 128 tasks (goal: {GOAL:.0f})"


def plan_of(arguments: argparse.Namespace) -> Plan:
    plan = QUICK if arguments.quick else FULL
    if arguments.rounds:
        plan = replace(plan, rounds=arguments.rounds)
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
        try:
            runner.run(measure(names, Path(folder), plan, lambda line: print(line, flush=True), outcomes))
        except KeyboardInterrupt:
            print("interrupted: what follows was measured before")
    text = markdown(outcomes, machine, facts)
    print("\n" + text)
    if said := verdict(outcomes):
        print("\n" + said)
    if arguments.json:
        arguments.json.write_text(as_json(outcomes, machine, facts))
    if arguments.write_docs:
        put_into(DOCUMENT, text)


if __name__ == "__main__":
    main()
