"""How a store works, as far as one can choose."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from kvcommon.numbers import SEGMENT_BYTES
from kvstore.index.base import Index
from kvstore.index.hash import HashIndex

Durability = Literal["fsync", "memory"]
READ_CACHE_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """The defaults are the database's. Sizes in bytes.

    `durability`: "fsync" syncs every flush; "memory" only writes (rule 11). `read_cache_bytes`: how much of the newest
    batches stays in memory for followers. `new_incarnation` makes an id that nobody else makes.
    """

    durability: Durability = "fsync"
    segment_bytes: int = SEGMENT_BYTES
    read_cache_bytes: int = READ_CACHE_BYTES
    index: Callable[[], Index] = HashIndex
    new_incarnation: Callable[[], str] = lambda: uuid.uuid4().hex
