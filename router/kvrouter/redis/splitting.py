"""Commands whose keys are of several slots: one command per slot, and one reply out of theirs. Pure.

MSET over several slots is not atomic: another client may see some of it, and where an error is the reply, the other slots'
part may have been done. The rest only read or count.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kvcommon.slots import slot_of
from kvresp.errors import UNKNOWN_OUTCOME
from kvrouter.redis.replies import integer_of, items_of

_ERROR = b"-"
_UNKNOWN = b"-" + UNKNOWN_OUTCOME.split()[0].encode()


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a command that one slot gets; `positions` are its keys' among all keys."""

    slot: int
    command: tuple[bytes, ...]
    positions: tuple[int, ...]


Join = Callable[[Sequence[Part], Sequence[bytes]], bytes]
"""Parts and their raw replies, none of them an error, to one raw reply."""


def _joined_items(parts: Sequence[Part], replies: Sequence[bytes]) -> bytes:
    items: dict[int, bytes] = {}
    for part, reply in zip(parts, replies, strict=True):
        items.update(zip(part.positions, items_of(reply), strict=True))
    return b"*%d\r\n%s" % (len(items), b"".join(items[position] for position in range(len(items))))


def _summed(_parts: Sequence[Part], replies: Sequence[bytes]) -> bytes:
    return b":%d\r\n" % sum(map(integer_of, replies))


def _first(_parts: Sequence[Part], replies: Sequence[bytes]) -> bytes:
    return replies[0]


# The commands that may be split: arguments per key, and how replies are joined.
SPLITTABLE: dict[bytes, tuple[int, Join]] = {
    b"MGET": (1, _joined_items),
    b"MSET": (2, _first),
    **dict.fromkeys((b"DEL", b"UNLINK", b"EXISTS", b"TOUCH"), (1, _summed)),
}


JoinAll = Callable[[Sequence[bytes]], bytes]


def _total(counts: Sequence[bytes]) -> bytes:
    return _first_error(counts) or _summed((), counts)


def _least(counts: Sequence[bytes]) -> bytes:
    return _first_error(counts) or b":%d\r\n" % min(map(integer_of, counts))


def _least_items(pairs: Sequence[bytes]) -> bytes:
    columns = zip(*map(items_of, pairs), strict=True) if not _first_error(pairs) else ()
    return _first_error(pairs) or b"*2\r\n%s" % b"".join(map(_least, columns))


def _first_error(replies: Sequence[bytes]) -> bytes:
    return next((reply for reply in replies if reply.startswith(_ERROR)), b"")


# The commands that every partition is asked, by their names in lower case: keys are summed, replicas counted where least.
ALL_PARTITIONS: dict[str, JoinAll] = {"dbsize": _total, "wait": _least, "waitaof": _least_items}


def split(name: bytes, arguments: Sequence[bytes]) -> list[Part]:
    """The parts of a splittable command (its name in capitals), in the order in which their slots appear.

    The arguments are as many as the command takes. Within a part keys keep their order, so of two values for one key the
    last one wins, as it does unsplit.
    """
    step, _ = SPLITTABLE[name]
    by_slot: dict[int, list[int]] = {}
    for position, key in enumerate(arguments[::step]):
        by_slot.setdefault(slot_of(key), []).append(position)
    return [
        Part(
            slot,
            (name, *(argument for p in positions for argument in arguments[p * step : (p + 1) * step])),
            tuple(positions),
        )
        for slot, positions in by_slot.items()
    ]


def join(name: bytes, parts: Sequence[Part], replies: Sequence[bytes]) -> bytes:
    """The one reply. Of errors, an unknown outcome goes first, as it says that something may have been done."""
    errors = [reply for reply in replies if reply.startswith(_ERROR)]
    if errors:
        return next((error for error in errors if error.startswith(_UNKNOWN)), errors[0])
    return SPLITTABLE[name][1](parts, replies)
