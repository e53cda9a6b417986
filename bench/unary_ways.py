"""The ways that a unary gRPC call can take to a cluster, all up at once."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.bare import empty_server
from bench.envoy import bridge, find_envoy
from bench.ours import Doors, another_router

BARE = (("Python server, empty answers: grpc.aio", False), ("the same: synchronous", True))


@dataclass(frozen=True, slots=True)
class UnaryWays:
    """Addresses; those in pairs with the row's name before them."""

    routers: tuple[str, ...] = ()  # beside the cluster's own
    others: tuple[tuple[str, str], ...] = ()
    bare: tuple[tuple[str, str], ...] = ()


@asynccontextmanager
async def unary_ways(doors: Doors, folder: Path, say: Callable[[str], None]) -> AsyncIterator[UnaryWays]:
    """Every way that this machine has."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        router = await enter(another_router(doors.cluster))
        others = [
            (
                "KVCluster, one router, grpcio's server",
                await enter(another_router(doors.cluster, "--grpc-server", "grpcio")),
            )
        ]
        envoy = find_envoy()
        if envoy is None:
            say("no Envoy, or no httptools: left out (see bench/envoy.py)")
        else:
            others.append(("KVCluster, Envoy, HTTP/1.1 behind", await enter(bridge(envoy, doors.cluster, folder))))
        bare = [(name, (await enter(empty_server(threads=threads)))[0]) for name, threads in BARE]
        yield UnaryWays((router,), tuple(others), tuple(bare))
