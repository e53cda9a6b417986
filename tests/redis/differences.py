"""Where our replies differ from a real Redis's on purpose: the whole list, with reasons; docs/redis.md has it for people.

The differential test makes both replies alike here before it compares them.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kvcommon.slots import slot_of

Command = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """A kind of command whose replies are made alike, and why they differ."""

    name: bytes
    reason: str
    alike: Callable[[bytes], bytes]


def _without_versions(reply: bytes) -> bytes:
    without_version = re.sub(rb"version\r\n\$\d+\r\n[0-9.]+\r\n", b"version\r\n", reply)
    return re.sub(rb"id\r\n:\d+\r\n", b"id\r\n", without_version)


DIFFERENCES = (
    Difference(b"HELLO", "the versions and the connections' numbers are each server's own", _without_versions),
)
ROUTER_DIFFERENCES = (
    *DIFFERENCES,
    Difference(
        b"SCAN",
        "the router's cursor goes through its partitions, so it is not 0 where that of a server with all keys is",
        lambda reply: reply[:1],
    ),
)


def router_refuses(command: Command) -> bool:
    """MSETNX and RENAME on several slots: Redis does them, the router can't do them atomically and says CROSSSLOT."""
    keys = {b"MSETNX": command[1::2], b"RENAME": command[1:]}.get(command[0].upper(), ())
    return len({slot_of(key) for key in keys}) > 1


def alike(command: Command, reply: bytes, differences: Sequence[Difference]) -> bytes:
    """The reply without what may differ."""
    difference = next((one for one in differences if one.name == command[0].upper()), None)
    return difference.alike(reply) if difference else reply
