"""What a node does as its disk fills: a leader refuses writes before there is no room, a follower leaves before a write fails."""

import asyncio
from collections.abc import Callable

import structlog

from kvnode.core.events import DiskSpace
from kvnode.core.types import Role
from kvnode.service import Service
from kvnode.shell.host import Host
from kvstore.files import is_full

log = structlog.get_logger()

FREE_CHECK = 1.0  # seconds between two looks
FOLLOWER_SHARE = 4  # a follower goes on until a quarter of what a leader keeps free is left: leaders stop first


async def watch_space(host: Host, service: Service, *, least: int, reopen: Callable[[], None]) -> None:
    """Look at the free space, until cancelled; a leader keeps `least` bytes of it.

    `reopen` is called when the disk of the only replica in sync was full and has space again, right before its run ends.
    """
    while True:
        await asyncio.sleep(FREE_CHECK)
        service.expire()
        try:
            free = host.store.free_bytes
        except OSError as e:
            log.warning("free disk space is not known", error=str(e))
            continue
        short = host.store.short_of_room
        full = free < least or short
        if full != service.disk_full:
            log.warning("disk nearly full" if full else "disk has space again", free_bytes=free)
            service.disk_full = full
        host.step(DiskSpace(low=free < least // FOLLOWER_SHARE or short))
        if not full and host.core.role is Role.FAILED and host.core.in_sync and _was_full(host.store.failure):
            reopen()
            host.end("its disk was full and has space again")


def _was_full(failure: BaseException | None) -> bool:
    """Whether a store failed for want of space alone: what is on its disk is known then, as after a crash."""
    return failure is not None and is_full(failure.__cause__)
