"""The router's gRPC connection, given what damage and malice make of a client's bytes: little time, little memory, no hang."""

import asyncio
import resource
import time
from random import Random
from typing import Any

import pytest

from tests.support.rpc_pair import Transport
from tests.unit.fuzz.mutations import mutated
from tests.unit.kvrouter.test_rpc_connection import SESSION, Served, lived

TRIES = 800
SECONDS = 0.5  # of CPU for one connection's few hundred bytes, on a machine that does much else
GROWTH = 64 << 10  # KiB by which the process may grow in all; HTTP/2 is C code, so its memory is the process's
PREFACE = 24  # bytes that a client begins with
FRAME = 9  # bytes of a frame's header: u24 length, u8 type, u8 flags, u32 stream


def frames(session: bytes) -> list[bytes]:
    """A client's frames."""
    found, at = [], PREFACE
    while at < len(session):
        end = at + FRAME + int.from_bytes(session[at : at + 3], "big")
        found.append(session[at:end])
        at = end
    return found


def changed(rng: Random) -> bytes:
    """A session with changed bytes, or with frames that are changed, lost, doubled, repeated often, or in another order."""
    if rng.random() < 0.3:
        return mutated(rng, [SESSION])
    sent = frames(SESSION)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(sent))
        match rng.choice(("change", "lose", "repeat", "move", "say more", "insert")):
            case "change":
                sent[at] = mutated(rng, sent)
            case "lose" if len(sent) > 1:
                del sent[at]
            case "repeat":
                sent[at:at] = [sent[at]] * rng.choice([1, 2, 200])
            case "move":
                sent.insert(rng.randrange(len(sent)), sent.pop(at))
            case "say more":
                sent[at] = rng.choice([b"\xff\xff\xff", b"\x00\x40\x01", b"\x01\x00\x00"]) + sent[at][3:]
            case _:
                head = rng.randrange(300).to_bytes(3, "big") + bytes([rng.randrange(12), rng.randrange(256)])
                sent.insert(at, head + rng.choice([0, 1, 3, 1 << 31, rng.randrange(1 << 32)]).to_bytes(4, "big"))
    return SESSION[:PREFACE] + b"".join(sent)


async def served(data: bytes, pieces: int) -> Transport:
    """A connection's whole life, its bytes in so many pieces."""
    size = len(data) // pieces + 1
    return await lived(Served(), (data[at : at + size] for at in range(0, len(data), size)))


@pytest.mark.parametrize("seed", range(3))
async def test_changed_sessions_end_in_little_time_and_memory(seed: int) -> None:
    """Nothing is raised into the event loop, and what is written in answer is bounded by what came."""
    rng, unhandled = Random(seed), list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    await served(SESSION, 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(TRIES):
        data = changed(rng)
        began = time.process_time()
        transport = await served(data, rng.choice([1, 2, 7]))
        assert time.process_time() - began < SECONDS, data
        assert not unhandled, data
        assert sum(map(len, transport.written)) < (4 << 10) + 20 * len(data), data
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH
