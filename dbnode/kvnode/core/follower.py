"""What a leader knows of one follower's connection."""

from collections import deque
from dataclasses import dataclass, field

from kvcoord.contract import RunId
from kvnode.core.types import Position

NEVER = float("-inf")


@dataclass(slots=True)
class Follower:
    """A follower's connection, since its handshake."""

    conn: int
    run: RunId
    sent: Position  # the last that was sent, or where the logs part
    live: bool = False  # everything was sent; new batches go straight out
    reading: bool = False  # a ReadLog is under way
    sequence: int = 0
    sent_at: float = NEVER
    sent_times: deque[tuple[int, float]] = field(default_factory=deque)
    sent_commit: int = 0
    unacked: deque[tuple[int, int, float]] = field(default_factory=deque)  # (last index, bytes, when) of what was sent
    unacked_bytes: int = 0
    echo: int = 0
    round_target: int = 0  # caught up when it reaches in a heartbeat's time what was committed at its beginning
    round_started: float = NEVER
    caught_up: bool = False
