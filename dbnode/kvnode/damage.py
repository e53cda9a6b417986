"""A disk that can't be opened: wait until the partition does not count on it any more, then begin from empty.

Nothing is wiped while the in-sync set names this disk: were it the last that has the data, a person must see it first.
"""

import asyncio
import time
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from kvcommon.errors import KVClusterError
from kvcommon.http import HttpServer
from kvcoord.contract import Coordination, MemberInfo, PartitionState, ReplicaId
from kvnode.registration import DAMAGED, keep_registered, trouble_of
from kvnode.settings import NodeSettings
from kvstore.errors import StoreError
from kvstore.files import OsFiles
from kvstore.meta import read_meta

log = structlog.get_logger()

ASIDE = "damaged-"


def incarnation_of(directory: Path) -> str | None:
    """Whose disk it was, if that can still be read."""
    try:
        meta = read_meta(OsFiles(), directory)
    except StoreError:
        return None
    return meta.incarnation if meta else None


def counts_on(state: PartitionState, pod: str, incarnation: str | None) -> bool:
    """Whether the in-sync set names this disk; one that does not know who it is may be any of its pod's."""
    return any(r.pod == pod and incarnation in (None, r.incarnation) for r in state.in_sync)


def remedy(state: PartitionState | None, pod: str) -> str:
    """What happens next, for a person."""
    if state is None:
        return "what the partition's state is, is not known yet"
    others = [r.pod for r in state.in_sync if r.pod != pod]
    if others:
        return f"it is rebuilt once {', '.join(others)} have taken it out of the in-sync set"
    return (
        "it alone was in sync, so nobody has all the data and nothing is wiped. Mend or restore its volume; or give up what "
        "only it has: `kvrecover --take <another pod>` (docs/coordination.md)"
    )


def put_aside(directory: Path) -> Path:
    """Move all files of a directory that does not know whose it is into a folder in it, for a person; an older one goes."""
    aside = directory / f"{ASIDE}{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
    old = [path for path in directory.iterdir() if path.name.startswith(ASIDE)]
    files = [path for path in directory.iterdir() if path.is_file()]
    aside.mkdir(exist_ok=True)
    for path in files:
        path.rename(aside / path.name)
    for folder in (f for f in old if f != aside):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    OsFiles().sync_directory(directory)
    return aside


@dataclass
class Damaged:
    """A node that can't open its disk: it answers probes, registers, says what is wrong, and waits."""

    settings: NodeSettings
    coordination: Coordination
    error: KVClusterError
    run_id: str
    state: PartitionState | None = None

    @property
    def incarnation(self) -> str | None:
        return incarnation_of(Path(self.settings.data_dir))

    def reason(self) -> str:
        """What is wrong, and what happens next."""
        return f"this replica's disk is damaged: {self.error}; {remedy(self.state, self.settings.pod)}"

    async def until_excluded(self, stop: asyncio.Event) -> bool:
        """Wait until it may be rebuilt; False: asked to stop before."""
        log.error(
            "this replica's disk is damaged; it is rebuilt once the others have taken it out", error=str(self.error)
        )
        settings = self.settings
        http = HttpServer(
            ready=self.reason,
            status=lambda: {"pod": settings.pod, "partition": settings.partition, "message": self.reason()},
            registry=CollectorRegistry(),
            host=settings.host,
            port=settings.http_port,
        )
        await http.start()
        at = settings.advertise_host
        member = MemberInfo(
            pod=settings.pod,
            partition=settings.partition,
            replica=ReplicaId(settings.pod, self.incarnation or ""),
            run=self.run_id,
            grpc_address=f"{at}:{settings.grpc_port}",
            replication_address=f"{at}:{settings.replication_port}",
            http_address=f"{at}:{http.port}",
            dns_name=settings.dns_name,
        )
        telling = asyncio.ensure_future(
            keep_registered(self.coordination, lambda: replace(member, trouble=trouble_of(DAMAGED, self.reason())))
        )
        stopped, waiting = asyncio.ensure_future(stop.wait()), asyncio.ensure_future(self._excluded())
        try:
            await asyncio.wait([stopped, waiting], return_when=asyncio.FIRST_COMPLETED)
            return waiting.done()
        finally:
            for task in (stopped, waiting, telling):
                task.cancel()
            await asyncio.gather(stopped, waiting, telling, return_exceptions=True)
            await http.close()

    async def _excluded(self) -> None:
        incarnation = self.incarnation
        async for versioned in self.coordination.watch_partition(self.settings.partition):
            self.state = versioned.value if versioned else None
            if self.state is not None and not counts_on(self.state, self.settings.pod, incarnation):
                return
            log.error("damaged disk", says=self.reason())
