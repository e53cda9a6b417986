"""The operator's connection to one cluster's coordination data."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

import structlog
from kvcoord.contract import Coordination, CoordinationUnavailableError
from kvcoord.view import ClusterView, ClusterWatch

from kvoperator.snapshot import CoordinationView

log = structlog.get_logger()
ANSWER_TIMEOUT = 3.0  # seconds; a reconciliation does not wait longer


class Link:
    """Opens coordination at a URL, keeps a view of it by watches, and wakes its owner when something changes.

    `opener` is kvcoord.open.open_coordination, or a test's.
    """

    def __init__(self, opener: Callable[[str], Coordination], on_change: Callable[[], None]) -> None:
        self._opener = opener
        self._on_change = on_change
        self._url = ""
        self._coordination: Coordination | None = None
        self._watch: ClusterWatch | None = None
        self._starting: asyncio.Task[None] | None = None

    @property
    def coordination(self) -> Coordination | None:
        """The open coordination, for writing; None before it was opened."""
        return self._coordination

    @property
    def view(self) -> ClusterView:
        """The newest view that the watches have brought."""
        return self._watch.view if self._watch else ClusterView()

    async def open(self, url: str) -> None:
        """Connect to `url` in the background, unless that is what is open; another one is closed first."""
        if url == self._url:
            return
        await self.close()
        self._url = url
        coordination = self._opener(url)
        self._coordination = coordination
        self._starting = asyncio.create_task(self._start(coordination), name="coordination")

    async def _start(self, coordination: Coordination) -> None:
        try:
            await coordination.start()
            watch = ClusterWatch(coordination, lambda _: self._on_change())
            self._watch = watch
            watch.start()
        except CoordinationUnavailableError as error:
            log.warning("coordination not started", url=self._url, error=str(error))
            self._url = ""  # the next round opens it again

    async def close(self) -> None:
        """Let go of it."""
        starting, watch, coordination = self._starting, self._watch, self._coordination
        self._starting = self._watch = self._coordination = None
        self._url = ""
        if starting is not None:
            starting.cancel()
            with suppress(asyncio.CancelledError):
                await starting
        if watch is not None:
            await watch.close()
        if coordination is not None:
            with suppress(CoordinationUnavailableError):
                await coordination.close()

    async def read(self, partitions: Iterable[int]) -> CoordinationView:
        """What coordination says now, asked anew: a decision that something is missing must not rest on a watch.

        Raises:
            CoordinationUnavailableError: it can't be asked.

        """
        if self._coordination is None or self._watch is None:
            raise CoordinationUnavailableError("not connected yet")
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await _read(self._coordination, tuple(partitions), self._watch.view)
        except TimeoutError:
            raise CoordinationUnavailableError(f"no answer within {ANSWER_TIMEOUT:g} s") from None


async def _read(coordination: Coordination, partitions: tuple[int, ...], seen: ClusterView) -> CoordinationView:
    reads = (coordination.read_partition(partition) for partition in partitions)
    (identity, slot_map, members), states = await asyncio.gather(
        asyncio.gather(coordination.read_identity(), coordination.read_map(), coordination.read_members()),
        asyncio.gather(*reads),
    )
    return CoordinationView(
        identity=identity,
        slot_map=slot_map.value if slot_map else None,
        partitions={p: state.value for p, state in zip(partitions, states, strict=True) if state is not None},
        members={**seen.members, **members},
        connected=frozenset(members),
    )
