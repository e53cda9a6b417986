"""Keeps coordination told who this node is, and what is wrong with it."""

import asyncio
from collections.abc import Callable

import structlog

from kvcoord.contract import Coordination, CoordinationUnavailableError, MemberInfo

log = structlog.get_logger()

EVERY = 1.0  # seconds between looks at what is to be told

DAMAGED = "ReplicaDamaged"
DISK_FULL = "DiskFull"
SLOW_DISK = "SlowDisk"


def trouble_of(reason: str, text: str) -> str:
    """A trouble as members tell it: a word that docs/operator.md explains, a sentence for people."""
    return f"{reason}: {' '.join(text.split())[:300]}"


async def keep_registered(coordination: Coordination, member: Callable[[], MemberInfo], every: float = EVERY) -> None:
    """Register, and again whenever what is told of the member is another; for as long as the node runs."""
    told: MemberInfo | None = None
    while True:
        now = member()
        if now != told:
            told = now
            try:
                await coordination.register_member(now)
            except CoordinationUnavailableError as e:  # it goes on trying by itself
                log.warning("not registered yet, trying on", error=str(e))
        await asyncio.sleep(every)
