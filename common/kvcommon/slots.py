"""Keys to slots, as Redis Cluster has it (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/)."""

from binascii import crc_hqx
from collections.abc import Sequence
from itertools import repeat

SLOTS = 16384


def slot_of(key: bytes) -> int:
    """The slot, 0..16383, of a key: CRC16 (XMODEM) of the key, or of its first non-empty `{hash tag}`."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) & (SLOTS - 1)


def slots_of(keys: Sequence[bytes]) -> list[int]:
    """The slots of keys, in their order."""
    if b"{" in b"".join(keys):
        return [slot_of(key) for key in keys]
    return [crc & (SLOTS - 1) for crc in map(crc_hqx, keys, repeat(0))]
