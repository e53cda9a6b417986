"""How a store works, as far as one can choose."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from kvcommon.numbers import SEGMENT_BYTES
from kvstore.files import Files
from kvstore.index.base import Index
from kvstore.index.hash import HashIndex
from kvstore.spares import Spares

Durability = Literal["fsync", "memory"]
READ_CACHE_BYTES: Final = 16 << 20
PREALLOCATE_BYTES: Final = 1 << 20
SPARE_SEGMENTS: Final = 4
RECORD_CACHE_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """The defaults are the database's. Sizes in bytes.

    `durability`: "fsync" syncs every flush; "memory" only writes (rule 11). `read_cache_bytes`: how much of the newest
    batches stays in memory for followers; `record_cache_bytes`: how much of what was read. `preallocate_bytes`: zeros
    written ahead of the log's end, so that most syncs change bytes in place; 0: none. `spare_segments`: how many files that compaction
    left behind are kept for that, too, where there is plenty of room (not with durability "memory"); 0: none. `ballast_bytes`: room kept back for
    writes that find none otherwise; 0: none (a node keeps some, by its settings). `new_incarnation` makes an id that nobody else makes.

    Compaction (`Store.maintain`): `compaction` False writes hints only. A run of segments is rewritten when the share
    `compaction_garbage` of it no longer counts, reading `compaction_bytes_per_second` for each segment that waits
    for that or for a hint (0: as fast as it goes), and only while `compaction_reserve_bytes` stay free beside its output.
    Deletes are kept for `tombstone_ms`, by the log's versions, at least.
    """

    durability: Durability = "fsync"
    segment_bytes: int = SEGMENT_BYTES
    preallocate_bytes: int = PREALLOCATE_BYTES
    spare_segments: int = SPARE_SEGMENTS
    ballast_bytes: int = 0
    read_cache_bytes: int = READ_CACHE_BYTES
    record_cache_bytes: int = RECORD_CACHE_BYTES
    compaction: bool = True
    compaction_garbage: float = 0.4
    compaction_bytes_per_second: int = 16 << 20
    compaction_reserve_bytes: int = 64 << 20
    tombstone_ms: int = 3_600_000
    index: Callable[[], Index] = HashIndex
    new_incarnation: Callable[[], str] = lambda: uuid.uuid4().hex

    def spares(self, files: Files, directory: Path) -> Spares:
        """Those of a store that works like this. They take a quarter of what must be free beside them; nobody is to miss it."""
        return Spares(
            files,
            directory,
            most=self.spare_segments if self.durability == "fsync" else 0,
            segment_bytes=self.segment_bytes,
            least_free=max(4 * self.spare_segments * self.segment_bytes, 16 * self.ballast_bytes),
        )
