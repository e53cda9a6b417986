"""What takes long in the shipped core and does not here, so that runs of a few seconds see it."""

from collections.abc import Iterator
from contextlib import contextmanager

from kvnode.core import leading, pace
from kvnode.shell import host

SMALL_PIECE = 300  # bytes


@contextmanager
def sooner(*, slow_disks: bool = False, slow_copies: bool = False) -> Iterator[None]:
    """How far every replica is, which deletes wait for before they are purged, is told each second.

    A leader that was taken out of its partition hands over when it has led for a second. With `slow_disks` a disk is slow
    when it has been so for a second. With `slow_copies` a follower that is behind gets the log in small pieces.
    """
    before = leading.PASSED_EVERY, pace.SETTLED, pace.SUSTAINED, host.READ_LOG_BYTES
    leading.PASSED_EVERY = pace.SETTLED = 1.0
    if slow_disks:
        pace.SUSTAINED = 1.0
    if slow_copies:
        host.READ_LOG_BYTES = SMALL_PIECE
    try:
        yield
    finally:
        leading.PASSED_EVERY, pace.SETTLED, pace.SUSTAINED, host.READ_LOG_BYTES = before
