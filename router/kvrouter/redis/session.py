"""A client's connection: commands in, replies out in the commands' order, whichever node answers first."""

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial

import structlog

from kvcommon.slots import slot_of
from kvresp import errors, replies
from kvresp.commands import Command, command_of
from kvresp.errors import CommandError
from kvresp.meaning import plan_of
from kvresp.reader import CommandReader
from kvrouter.redis.cursors import CursorError, read_cursor, with_router_cursor
from kvrouter.redis.hub import Hub
from kvrouter.redis.joining import Joined
from kvrouter.redis.lanes import Lane
from kvrouter.redis.replies import integer_of
from kvrouter.redis.requests import Request
from kvrouter.redis.splitting import SPLITTABLE, join, split

OVERHEAD = 512  # bytes that a command under way costs beside its own

_UNKNOWN = replies.error(errors.UNKNOWN_OUTCOME)
_TOO_MANY = replies.error(errors.TOO_MANY_CLIENTS)
_CROSS_SLOT = replies.error(errors.CROSS_SLOT)
_NO_MAP = replies.error("CLUSTERDOWN The router does not know the cluster's map yet")
_NOT_DONE = replies.error("CLUSTERDOWN Not done: no leader took the command before its deadline. Try again")

log = structlog.get_logger()


class Done:
    """A reply that was there at once, behind others that were not."""

    __slots__ = ("reply",)
    cost = OVERHEAD
    deadline = float("inf")

    def __init__(self, reply: bytes) -> None:
        self.reply: bytes | None = reply


class Session(asyncio.Protocol):
    """From a client's connecting to its end.

    **Barriers.** HELLO and RESET change how replies are written, and a new map where keys are: then what follows waits
    until all before it is answered.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._forwarder = hub.forwarder
        self._reader = CommandReader()
        self._transport: asyncio.Transport | None = None
        self._number = 0
        self.protocol = 2
        self._map_version = 0
        self._lanes: dict[int, Lane] = {}
        self._queue: deque[Request | Joined | Done] = deque()  # without a reply, or behind one without
        self._later: deque[list[bytes]] = deque()  # behind a barrier
        self._out: list[bytes] = []
        self._dirty = False
        self._held = 0  # bytes, of commands in the queue
        self._stopped = False  # takes no more commands, ends when all are answered
        self._full = False  # the client does not take its replies
        self._deadline = 0.0

    # -- commands ------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._stopped:
            return
        commands = self._reader.feed(data)
        self._deadline = self._hub.loop.time() + self._hub.limits.deadline
        self._hub.commands += len(commands)
        if self._later:
            self._later.extend(commands)
        else:
            self._take(commands)
        if self._reader.error:
            self._later_or_now_end()
        self._mind_reading()

    def _take(self, commands: Sequence[list[bytes]]) -> None:
        for i, args in enumerate(commands):
            if self._stopped:
                return
            if not self._do(args):
                self._later.extend(commands[i:])
                return
