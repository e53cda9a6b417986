"""Where our replies differ from a real Redis's on purpose: the whole list, with reasons; docs/redis.md has it for people.

The differential test makes both replies alike here before it compares them.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

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
_BY_NAME = {difference.name: difference for difference in DIFFERENCES}


def alike(command: Command, reply: bytes) -> bytes:
    """The reply without what may differ."""
    difference = _BY_NAME.get(command[0].upper())
    return difference.alike(reply) if difference else reply
