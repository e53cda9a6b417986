"""Which client batches have been done, with what result: a fold of the log's SESSION records (rule 10).

A SESSION record's key is the client's 16-byte id and the batch's sequence (u64, little-endian); its value is the
result, opaque here; its version's milliseconds are the time. Every replica folds the same records to the same table.
"""

import struct
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from kvcommon.numbers import DEDUPLICATION_BATCHES, DEDUPLICATION_WINDOW
from kvcommon.versions import version_ms

_KEY = struct.Struct("<16sQ")
KEY_BYTES: Final = _KEY.size
_MARGIN: Final = 60.0  # s kept beyond the window, for clocks and for requests under way


@dataclass(frozen=True, slots=True)
class Expired:
    """The sequence is past the client's window: what came of it is no longer known, and it must not be done again."""

    newest_evicted: int


@dataclass(slots=True)
class _Client:
    results: dict[int, bytes] = field(default_factory=dict)  # by sequence, in the order of the log
    evicted: int = -1
    seen_ms: int = 0


def session_key(client_id: bytes, sequence: int) -> bytes:
    """The key of the SESSION record of a client's batch. Raises ValueError for an id that hasn't 16 bytes."""
    if len(client_id) != 16:
        msg = f"a client id of {len(client_id)} bytes; it must have 16"
        raise ValueError(msg)
    return _KEY.pack(client_id, sequence)


class Sessions:
    """The table of results: the last `batches` of each client, and of clients seen within `window` seconds only."""

    def __init__(self, batches: int = DEDUPLICATION_BATCHES, window: float = DEDUPLICATION_WINDOW + _MARGIN) -> None:
        self._batches = batches
        self._window_ms = int(window * 1000)
        self._clients: OrderedDict[bytes, _Client] = OrderedDict()  # least lately seen first
        self._now_ms = 0

    def __len__(self) -> int:
        """How many clients are known."""
        return len(self._clients)

    def apply(self, key: bytes, value: bytes, version: int) -> None:
        """Fold one SESSION record in, in the order of the log. Amortised O(1). Raises ValueError for a wrong key."""
        if len(key) != _KEY.size:
            msg = f"a session record's key of {len(key)} bytes; it must have {_KEY.size}"
            raise ValueError(msg)
        client_id, sequence = _KEY.unpack(key)
        self._now_ms = max(self._now_ms, version_ms(version))
        self._forget_clients()
        client = self._clients.get(client_id)
        if client is None:
            client = self._clients[client_id] = _Client()
        else:
            self._clients.move_to_end(client_id)
        client.seen_ms = self._now_ms
        client.results[sequence] = value
        if len(client.results) > self._batches:
            oldest = next(iter(client.results))
            del client.results[oldest]
            client.evicted = max(client.evicted, oldest)

    def _forget_clients(self) -> None:
        horizon = self._now_ms - self._window_ms
        clients = self._clients
        while clients and next(iter(clients.values())).seen_ms < horizon:
            clients.popitem(last=False)

    def lookup(self, client_id: bytes, sequence: int) -> bytes | Expired | None:
        """The result of a client's batch; None if it was never done, Expired if that can't be known any more."""
        client = self._clients.get(client_id)
        if client is None:
            return None
        result = client.results.get(sequence)
        if result is None and sequence <= client.evicted:
            return Expired(client.evicted)
        return result

    def remembers(self, key: bytes) -> bool:
        """Whether the SESSION record with this key still tells something. Another thread may ask at the same time.

        The newest sequence that was evicted does, too: without its record a refold would not know of evictions.
        """
        client_id, sequence = _KEY.unpack(key)
        client = self._clients.get(client_id)
        return client is not None and (sequence in client.results or sequence == client.evicted)

    def clear(self) -> None:
        """Forget everything."""
        self._clients.clear()
        self._now_ms = 0
