"""Has the store keep its log small and sound, in a thread of its own."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from kvcommon.clock import Clock
from kvstore.errors import StoreClosedError, StoreError
from kvstore.files import is_full
from kvstore.store import Store

log = structlog.get_logger()

PAUSE = 1.0  # seconds between two looks for something to do
PAUSE_WHEN_REFUSED = 30.0  # seconds after the disk had no room


class Upkeep:
    """Calls `Store.maintain` while there is something to do, and `Store.verify` so that all is read once in a while.

    `passed` gives the index that every replica of the partition is known to have durably; `damaged` is told of damage.
    `verify_every`: seconds in which the whole log is verified once; 0: never.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        passed: Callable[[], int],
        damaged: Callable[[Exception], None],
        verify_every: float,
    ) -> None:
        self._store, self._clock = store, clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upkeep")
        self._passed, self._damaged = passed, damaged
        self._verify_every = verify_every
        self._verified_at = clock.now()

    async def run(self) -> None:
        """Until cancelled, or until the store is damaged, failed or closed.

        What is under way then ends with the store's closing or wiping, at the latest.
        """
        try:
            while True:  # noqa: ASYNC110 - it paces work, it waits for nothing
                await asyncio.sleep(await self._once())
        except StoreClosedError:
            return
        except (StoreError, OSError) as e:
            self._damaged(e)
        finally:
            self._thread.shutdown(wait=False)

    async def _once(self) -> float:
        """Do one piece of work; gives the seconds until the next."""
        self._store.allow_purge(self._passed())
        loop, pause = asyncio.get_running_loop(), PAUSE
        try:
            if await loop.run_in_executor(self._thread, self._store.maintain):
                return 0.0
        except OSError as e:
            if not is_full(e):
                raise
            log.warning("no room to compact the log now", error=str(e))
            pause = PAUSE_WHEN_REFUSED
        segments = max(1, self._store.segments)
        if self._verify_every and self._clock.now() - self._verified_at >= self._verify_every / segments:
            self._verified_at = self._clock.now()
            await loop.run_in_executor(self._thread, self._store.verify)
        return pause
