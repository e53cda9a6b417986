"""One `kvlocal run`: from the manifest to Ctrl-C."""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvcommon.logging import configure_logging
from kvlocal.cluster import LocalCluster, Settings
from kvlocal.launch import Launcher
from kvlocal.manifest import load_shape
from kvlocal.processes import Exit
from kvlocal.screen import Screen

DEFAULT_DATA = Path(".kvcluster")


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    manifest: Path
    data: Path | None
    zookeeper: str
    port: int
    http_port: int
    redis_port: int
    demo: bool
    exit_after_demo: bool


async def run_until_stopped(options: Options, screen: Screen, launcher: Launcher) -> int:
    """Run the cluster until a signal (or the demonstration's end, if so asked); the exit code.

    Raises ConfigurationError or ClusterStartError.
    """
    # On stderr, and only what is wrong: this process is a screen for a person. Its children have logs of their own.
    configure_logging("kvlocal", environment={"KV_LOG_LEVEL": "warning", **os.environ})
    shape = load_shape(options.manifest)
    folder = options.data or DEFAULT_DATA / shape.name
    settings = Settings(
        options.zookeeper,
        {"grpc": options.port, "http": options.http_port, "redis": options.redis_port},
        word_of_death=True,
    )
    cluster = LocalCluster(shape, folder, settings, on_exit=_teller(screen), launcher=launcher)
    size = f"{shape.partitions} partition{'s' * (shape.partitions != 1)} x {shape.replicas} replica{'s' * (shape.replicas != 1)}"
    screen.title(f"{shape.name}: {size} and a router")
    return await _until_signal(lambda: _work(cluster, options, screen), cluster, screen)


def _teller(screen: Screen) -> Callable[[Exit], None]:
    def tell(one: Exit) -> None:
        if not one.asked:
            screen.said(str(one))

    return tell


async def _work(cluster: LocalCluster, options: Options, screen: Screen) -> int:
    await cluster.start(lambda step: screen.done(step))
    await _introduce(cluster, screen)
    code = 0
    if options.demo:
        from kvlocal.demo import demonstrate  # gRPC: not before the cluster's own processes have started

        screen.title("A failover")
        code = 0 if await demonstrate(cluster, screen) else 1
    if options.exit_after_demo:
        return code
    screen.line("\nUp until Ctrl-C.")
    await asyncio.Event().wait()
    return code


async def _introduce(cluster: LocalCluster, screen: Screen) -> None:
    shape = cluster.shape
    rows = []
    for partition in range(shape.partitions):
        state = await cluster.state(partition)
        leader = state.leader.replica.pod if state.leader else "none yet"
        rows.append((str(partition), leader, str(state.epoch), f"{len(state.in_sync)} of {len(state.replicas)}"))
    screen.line()
    screen.table(("PARTITION", "LEADER", "EPOCH", "IN SYNC"), rows)
    screen.line()
    screen.pairs(
        [
            ("Router", cluster.router_address),
            ("Redis", f"redis-cli -p {cluster.port(shape.router, 'redis')}"),
            ("Redis Cluster", f"redis-cli -c -p {cluster.port(shape.pods[0], 'redis')}"),
            ("Try", f"{_kvctl()} -e {cluster.router_address} put greeting hello"),
            ("Logs", str(cluster.folder.path / "logs")),
        ]
    )


def _kvctl() -> str:
    """How to call kvctl from here: by name where PATH has it, else by the path beside this interpreter."""
    if shutil.which("kvctl"):
        return "kvctl"
    return os.path.relpath(Path(sys.executable).with_name("kvctl"))


async def _until_signal(work: Callable[[], Coroutine[Any, Any, int]], cluster: LocalCluster, screen: Screen) -> int:
    """Do the work until it or the person's patience ends; then end every process."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    task, stopped = asyncio.create_task(work()), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return 0
    finally:
        stopped.cancel()
        began = time.monotonic()
        await cluster.stop()
        if (not task.cancelled() and task.exception() is None) or stop.is_set():
            screen.line(
                f"\nEnded in {time.monotonic() - began:.1f} s. The data is in {cluster.folder.path}; run again to find it."
            )
