"""The operator's connection to one cluster's coordination data."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

import structlog

from kvcoord.contract import Coordination, CoordinationUnavailableError
from kvcoord.view import ClusterView, ClusterWatch
from kvoperator.snapshot import CoordinationView

log = structlog.get_logger()
ANSWER_TIMEOUT = 3.0  # seconds; a round does not wait longer
ASK_AGAIN = 30.0  # seconds that the watches alone are believed


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
        self._ask_at = 0.0

    @property
    def coordination(self) -> Coordination | None:
        """The open coordination, for writing; None before it was opened."""
        return self._coordination

    @property
    def view(self) -> ClusterView:
        """The newest view that the watches have brought."""
        return self._watch.view if self._watch else ClusterView()

    async def open(self, url: str) -> bool:
        """Connect to `url` in the background, unless that is what is open; another one is closed first.

        Whether it was not open before.
        """
        if url == self._url:
            return False
        await self.close()
        self._url = url
        coordination = self._opener(url)
        self._coordination = coordination
        self._starting = asyncio.create_task(self._start(coordination), name="coordination")
        return True

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
        self._url, self._ask_at = "", 0.0
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
        """What coordination says now.

        By the watches when they have brought everything; otherwise, after a time in which nothing could be asked, and
        now and then, asked anew: that something is missing must not rest on a watch, and watches keep what they saw last.

        Raises:
            CoordinationUnavailableError: it can't be asked.

        """
        coordination, watch, wanted = self._coordination, self._watch, tuple(partitions)
        if coordination is None or watch is None:
            raise CoordinationUnavailableError("not connected yet")
        now = asyncio.get_running_loop().time()
        if coordination.connected and now < self._ask_at and _whole(watch.view, wanted):
            return _of_view(watch.view, wanted)
        self._ask_at = 0.0
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                answer = await _ask(coordination, wanted, watch.view)
        except TimeoutError:
            raise CoordinationUnavailableError(f"no answer within {ANSWER_TIMEOUT:g} s") from None
        if answer.identity is not None and all(p in answer.partitions for p in wanted):
            self._ask_at = now + ASK_AGAIN
        return answer


def _whole(view: ClusterView, partitions: tuple[int, ...]) -> bool:
    return view.identity is not None and view.complete and all(p in view.partitions for p in partitions)


def _of_view(view: ClusterView, partitions: tuple[int, ...]) -> CoordinationView:
    return CoordinationView(
        identity=view.identity,
        slot_map=view.slot_map,
        partitions={p: view.partitions[p].value for p in partitions},
        members=view.members,
        connected=view.connected,
    )


async def _ask(coordination: Coordination, partitions: tuple[int, ...], seen: ClusterView) -> CoordinationView:
    session = coordination.session
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
        session=session,
    )
