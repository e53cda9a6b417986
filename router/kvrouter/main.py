"""The `kvrouter` command."""

import asyncio
import random
import sys
from functools import partial

import structlog

from kvclient.grpc_transport import ChannelFactory
from kvclient.pipeline_transport import NodeTransport
from kvcommon.clock import SystemClock
from kvcommon.errors import ConfigurationError, KVClusterError
from kvcommon.logging import configure_logging
from kvcommon.server import run
from kvcommon.settings import exit_configuration, load_settings
from kvcoord.contract import Coordination, CoordinationUnavailableError
from kvcoord.open import open_coordination
from kvrouter.redis.door import Limits
from kvrouter.router import Addresses, Router
from kvrouter.settings import RouterSettings

log = structlog.get_logger()


async def _serve(settings: RouterSettings, stop: asyncio.Event) -> None:
    coordination = open_coordination(settings.coordination)
    await coordination.start()
    try:
        await _check_identity(coordination, settings.cluster_id)
        router = Router(
            coordination,
            NodeTransport(ChannelFactory()),
            Addresses(settings.host, settings.grpc_port, settings.http_port, settings.redis_port, settings.grpc_server),
            clock=SystemClock(),
            rng=random.SystemRandom(),
            redis_limits=Limits(connections=settings.redis_max_clients),
        )
        try:
            await router.start()
            await stop.wait()
        finally:
            await router.close(settings.shutdown_timeout)
    finally:
        await coordination.close()


async def _check_identity(coordination: Coordination, cluster_id: str) -> None:
    """Refuse another cluster's coordination; one that can't be asked yet is checked by its path alone."""
    try:
        identity = await coordination.read_identity()
    except CoordinationUnavailableError as error:
        log.warning("coordination is away, trying on", error=str(error))
        return
    if identity is not None and identity.cluster_id != cluster_id:
        raise ConfigurationError(
            f"--coordination is that of cluster {identity.cluster_id} ({identity.name}), but --cluster-id is "
            f"{cluster_id}: set one of them right"
        )


def main() -> None:
    """Run a router until SIGTERM; exit code 2 for what a person must set right."""
    settings = load_settings(RouterSettings)
    configure_logging("kvrouter")
    try:
        run(partial(_serve, settings))
    except ConfigurationError as error:
        exit_configuration(error)
    except KVClusterError as error:
        log.error("router ended", error=str(error))  # noqa: TRY400 - a sentence for a person, not a trace
        sys.exit(1)


if __name__ == "__main__":
    main()
