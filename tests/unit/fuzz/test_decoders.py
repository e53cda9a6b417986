"""Every decoder, given what damage and malice make of its input: a value, or an error by name; in little time and memory.

Where a checksum protects a format, it is made right again after the change: what is tried is the decoder, not the checksum.
"""

import contextlib
import json
import struct
import time
import tracemalloc
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import pytest

from kvcommon.errors import KVClusterError
from kvcommon.slotmap import SlotMap
from kvcoord import codec
from kvcoord.contract import ClusterIdentity, Death, ReplicaId, RunId
from kvcoord.recovery import Witness
from kvnode.core.messages import (
    Ack,
    Append,
    Compacted,
    Go,
    Hello,
    Leave,
    Passed,
    Refuse,
    RefuseReason,
    Welcome,
)
from kvnode.core.types import Batch, EpochStart, Meta, Position
from kvnode.operations import Outcome
from kvnode.sessions import decode_outcomes, encode_outcomes
from kvnode.shell import wire
from kvnode.shell.metafile import meta_from_json, meta_to_json
from kvnode.shell.testimony import Answer, Kept, Question, kept_from_json, kept_to_json
from kvproto import pipeline
from kvproto.v1 import kv_pb2
from kvresp.reader import CommandReader
from kvrouter.redis.cursors import CursorError, read_cursor, with_router_cursor
from kvrouter.redis.replies import ReplyError, ReplySplitter, integer_of, items_of
from kvstore import hint, horizon, meta, segment
from kvstore.batch import RecordType, decode_record, encode_batch, encode_records, iter_batches, iter_records
from kvstore.checksum import crc32c
from kvstore.errors import StoreError
from kvstore.incoming import BEGINNING, split
from kvstore.sealed import HEADER_BYTES, seal
from kvstore.sessions import KEY_BYTES
from tests.support.faulty_files import FaultyFiles
from tests.unit.fuzz.mutations import mutated
from tests.unit.kvcoord.contract_suite import IDENTITY, STATE, led_by, member

DATA = Path("/data")
MIB = 1 << 20
TRIES = 1500  # for each format; 20,000 were tried once
SECONDS = 0.5  # of CPU for a few hundred bytes, on a machine that does much else
EPOCH, INDEX = 3, 17
RUN = RunId(ReplicaId("c-p0-0", "i1"), "run1")
RECORDS = [(int(RecordType.PUT), b"key%d" % i, b"value" * i, 7 + i, 0) for i in range(3)]
BATCH = encode_batch(EPOCH, INDEX, INDEX - 1, RECORDS)
NEXT = encode_batch(EPOCH, INDEX + 3, INDEX + 2, [(int(RecordType.DELETE), b"key1", b"", 20, 0)])


@dataclass(frozen=True)
class Format:
    """How a format's bytes are read, what good ones are, and which errors are by name."""

    decode: Callable[[bytes], object]
    samples: tuple[bytes, ...]
    errors: tuple[type[Exception], ...]


# --- replication and pipeline frames ---------------------------------------------------------------------------------

ANSWER = Answer(
    0,
    Witness(RUN.replica, "run1", lost=True, state=led_by("run1"), tried=STATE, accepted_epoch=4, end=(3, 17)),
    Kept(ClusterIdentity("id", "c", 2, 3), SlotMap.even(2)),
)
SAID: tuple[wire.Spoken, ...] = (
    Hello("id", 0, RUN, RUN, 4, Position(3, 17), 12, (EpochStart(1, 1), EpochStart(3, 9)), 2.0),
    Welcome(4, Position(3, 17), 12),
    Refuse(4, RefuseReason.STRANGER),
    Append(3, 9, Position(3, 16), 16, (Batch(3, 17, 19, BATCH), Batch(3, 20, 20, NEXT)), 8, leased=True),
    Append(3, 10, Position(3, 20), 16, (), 8, leased=False),
    Ack(3, 9, 9, 17),
    Go(3, RUN),
    Leave(3, broken=True),
    Compacted(3, 9, 7),
    Passed(3, 9),
    Question("id"),
    ANSWER,
)


def framed(payload: bytes) -> bytes:
    return struct.pack("<II", len(payload), crc32c(payload)) + payload


def replication(payload: bytes) -> object:
    """A frame with a right checksum, in one piece and in many; what comes out can be said again."""
    data = framed(payload)
    whole = wire.Decoder().feed(data)
    pieces = wire.Decoder()
    assert [m for at in range(0, len(data), 5) for m in pieces.feed(data[at : at + 5])] == whole
    return [wire.encode(message) for message in whole]


def stream(data: bytes) -> object:
    """Bytes as they come on a connection, the frames' own lengths and checksums among them."""
    return wire.Decoder().feed(data)


def log_of(message: bytes) -> object:
    """Batches that a frame brings, as the store takes them: their own checksums made right, too."""
    return split(resealed(message), BEGINNING._replace(epoch=EPOCH, index=INDEX - 1), trusted=True)


REQUEST = pipeline.Request(
    [(2, b"key", b"value", None), (1, b"k", b"", None), (3, b"x", b"y" * 40, 9)], 7, b"0123456789abcdef", 5
)
RESULTS: list[pipeline.ResultTuple] = [
    (11, b"v", None),
    (0, b"", kv_pb2.Error(code=kv_pb2.ERROR_CODE_NOT_FOUND)),
    (12, b"", None),
]
HEAD = 6  # bytes before a frame's body


def pipeline_frames(data: bytes) -> object:
    return pipeline.Decoder().feed(data)


# --- what is on disk -------------------------------------------------------------------------------------------------


def resealed(data: bytes) -> bytes:
    """A batch with its own checksum made right: it covers all behind it that the length says, if so much is there."""
    if len(data) < 8:
        return data
    length = int.from_bytes(data[4:8], "little")
    end = min(len(data), 8 + length)
    return crc32c(data[4:end]).to_bytes(4, "little") + data[4:]


def log_batches(data: bytes) -> object:
    return [list(iter_records(batch)) for _, batch in iter_batches(resealed(data))]


def log_record(data: bytes) -> object:
    return decode_record(crc32c(data[4:]).to_bytes(4, "little") + data[4:])


def sealed_file(name: str, magic: bytes, read: Callable[[FaultyFiles, Path], object], content: bytes) -> object:
    """A small file with a right checksum, in a directory that has nothing else."""
    files = FaultyFiles()
    files.make_directory(DATA)
    file = files.open(DATA / name, create=True)
    file.write(seal(magic, content), 0)
    return read(files, DATA)


def sealed_header(name: str, read: Callable[[FaultyFiles, Path], object], data: bytes) -> object:
    """A small file whose header was changed, too; its checksum is right all the same."""
    if len(data) >= HEADER_BYTES:
        data = data[:16] + crc32c(data[:16] + data[HEADER_BYTES:]).to_bytes(4, "little") + data[HEADER_BYTES:]
    files = FaultyFiles()
    files.make_directory(DATA)
    files.open(DATA / name, create=True).write(data, 0)
    return read(files, DATA)


def read_hint(files: FaultyFiles, directory: Path) -> object:
    return hint.read_hint(files, directory / segment.segment_name(5))


def hint_file(content: bytes) -> object:
    return hint.decode_hint(seal(b"KVC-HINT", content), DATA / "00000000000000000005.hint").keys()


def segment_header(data: bytes) -> object:
    if len(data) >= segment.HEADER_BYTES:
        head = data[: segment.HEADER_BYTES - 4]
        data = head + crc32c(head).to_bytes(4, "little") + data[segment.HEADER_BYTES :]
    return segment.read_segment_header(data, DATA / segment.segment_name(5))


def as_json(read: Callable[[object], object], data: bytes) -> object:
    return read(json.loads(data))


HINT = hint.encode_hint(
    hint.Hint(
        5,
        9,
        4000,
        3,
        12,
        99,
        [(1, 5), (2, 8)],
        [(5, 36), (8, 999)],
        array("H", [3, 2]),
        array("Q", [24 << 21 | 30] * 2),
        b"keyab",
        encode_records(5, [(int(RecordType.SESSION), bytes(KEY_BYTES), b"result", 1, 0)])[0],
    )
)[HEADER_BYTES:]
META = json.dumps(
    {"cluster_id": "id", "partition": 0, "incarnation": "i1", "pod": "c-p0-0", "replication": {"a": 1}}
).encode()
ROWS = struct.pack("<6Q", 1, 1, 2, 8, 5, 9)


# --- Redis -----------------------------------------------------------------------------------------------------------


def redis_commands(data: bytes) -> object:
    """In one piece and in many: the same commands, the same error."""
    whole, pieces = CommandReader(), CommandReader()
    commands = whole.feed(data)
    assert [c for at in range(0, len(data), 3) for c in pieces.feed(data[at : at + 3])] == commands
    assert pieces.error == whole.error
    return commands


def redis_replies(data: bytes) -> object:
    """In one piece and in many; each comes apart."""
    whole, pieces = ReplySplitter().feed(data), ReplySplitter()
    assert [r for at in range(0, len(data), 3) for r in pieces.feed(data[at : at + 3])] == whole
    for reply in whole:
        if reply.startswith(b"*"):
            items_of(reply)
        elif reply.startswith(b":"):
            integer_of(reply)
    return whole


def scan_reply(data: bytes) -> object:
    return [with_router_cursor(reply, 1, [0, 1, 3]) for reply in ReplySplitter().feed(data)]


COMMANDS = (
    b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n",
    b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4\r\nPING\r\n",
    b"SET k 'a value'\r\nGET \"k\\x00\"\r\n",
    b"*10000\r\n$1\r\nx\r\n",
    b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\n+4930\r\n*2\r\n$3\r\nGET\r\n=5\r\ntxt:k\r\n",
    b"*2\r\n$3\r\nGET\r\n+k\r\n*2\r\n$3\r\nGET\r\n(5\r\n",
)
REPLIES = (
    b"+OK\r\n:42\r\n$5\r\nvalue\r\n$-1\r\n",
    b"*2\r\n$1\r\n7\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n",
    b"%1\r\n+role\r\n+master\r\n-ERR no such key\r\n_\r\n#t\r\n=5\r\ntxt:x\r\n",
)

SEALED: dict[str, tuple[str, bytes, Callable[[FaultyFiles, Path], object], bytes]] = {
    "meta": (meta.META, b"KVC-META", meta.read_meta, META),
    "epochs": (meta.EPOCHS, b"KVCEPOCH", meta.read_epochs, ROWS),
    "the horizon": (horizon.HORIZON, b"KVC-HRZN", horizon.read_horizon, ROWS[:16]),
    "a hint": (hint.hint_path(Path(segment.segment_name(5))).name, b"KVC-HINT", read_hint, HINT),
}


def sealed_format(name: str, magic: bytes, read: Callable[[FaultyFiles, Path], object], content: bytes) -> Format:
    """Its header alone is changed, so that most changes are of magic, version, flags and length."""
    sample = seal(magic, content)
    rest = sample[HEADER_BYTES:]
    return Format(lambda head: sealed_header(name, read, head + rest), (sample[:HEADER_BYTES],), (StoreError,))


FORMATS: dict[str, Format] = {
    "replication frames": Format(replication, tuple(wire.encode(m)[8:] for m in SAID), (wire.WireError,)),
    "replication streams": Format(
        stream, (b"".join(map(wire.encode, SAID)), wire.encode(SAID[0]), wire.encode(SAID[3])), (wire.WireError,)
    ),
    "batches of a frame": Format(log_of, (BATCH, BATCH + NEXT), (StoreError,)),
    "pipeline frames": Format(
        pipeline_frames,
        (pipeline.encode_request(REQUEST), pipeline.encode_answer(7, RESULTS), pipeline.HELLO_FRAME),
        (pipeline.FrameError,),
    ),
    "pipeline requests": Format(
        pipeline.decode_request, (pipeline.encode_request(REQUEST)[HEAD:],), (pipeline.FrameError,)
    ),
    "pipeline requests of one get": Format(
        pipeline.one_get,
        (pipeline.encode_request(pipeline.Request([(1, b"key", b"", None)], id=7, read_mode=1))[HEAD:],),
        (),
    ),
    "pipeline answers of one record": Format(
        pipeline.decode_answer, (pipeline.encode_record(7, 11, b"value")[HEAD:],), (pipeline.FrameError,)
    ),
    "pipeline answers": Format(
        pipeline.decode_answer, (pipeline.encode_answer(7, RESULTS)[HEAD:],), (pipeline.FrameError,)
    ),
    "log batches": Format(log_batches, (BATCH, BATCH + NEXT), (StoreError,)),
    "log records": Format(log_record, (encode_records(5, RECORDS[:1])[0],), (StoreError,)),
    "segment headers": Format(
        segment_header,
        (segment.segment_header(5), segment.compacted_header(5, 4), segment.recycled_header(5)),
        (StoreError,),
    ),
    "hints": Format(hint_file, (HINT,), (StoreError,)),
    "meta": Format(partial(sealed_file, meta.META, b"KVC-META", meta.read_meta), (META,), (StoreError,)),
    "epochs": Format(partial(sealed_file, meta.EPOCHS, b"KVCEPOCH", meta.read_epochs), (ROWS,), (StoreError,)),
    "horizon": Format(
        partial(sealed_file, horizon.HORIZON, b"KVC-HRZN", horizon.read_horizon), (ROWS[:16],), (StoreError,)
    ),
    **{f"header of {name}": sealed_format(*sealed) for name, sealed in SEALED.items()},
    "the core's meta": Format(
        partial(as_json, meta_from_json),
        (json.dumps(meta_to_json(Meta(3, led_by("run1"), 9, STATE))).encode(),),
        (KVClusterError, ValueError),
    ),
    "what is kept of the cluster": Format(
        partial(as_json, kept_from_json),
        (json.dumps(kept_to_json(ANSWER.kept)).encode(),),
        (KVClusterError, ValueError),
    ),
    "outcomes": Format(
        decode_outcomes,
        (encode_outcomes([(2, b"k", b"v", None), (1, b"k", b"", None)], [Outcome(0, 9), Outcome(2)]),),
        (KVClusterError,),
    ),
    "identity": Format(codec.decode_identity, (codec.encode_identity(IDENTITY),), (KVClusterError,)),
    "map": Format(codec.decode_map, (codec.encode_map(SlotMap.even(3)),), (KVClusterError,)),
    "partition": Format(
        codec.decode_partition,
        (codec.encode_partition(STATE), codec.encode_partition(led_by("run1"))),
        (KVClusterError,),
    ),
    "member": Format(codec.decode_member, (codec.encode_member(member()),), (KVClusterError,)),
    "deaths": Format(
        codec.decode_deaths, (codec.encode_deaths({"c-p0-0": Death("c-p0-0", "run1", "x", 3)}),), (KVClusterError,)
    ),
    "run": Format(codec.decode_run, (codec.encode_run("run1"),), (KVClusterError,)),
    "Redis commands": Format(redis_commands, COMMANDS, ()),
    "Redis replies": Format(redis_replies, REPLIES, (ReplyError,)),
    "replies to SCAN": Format(scan_reply, REPLIES[1:2], (ReplyError,)),
    "cursors": Format(
        lambda data: read_cursor(data, [0, 1, 3]), (b"0", b"1025", b"1844674407370955777"), (CursorError,)
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_changed_bytes_are_a_value_or_an_error_by_name(name: str) -> None:
    """In little time, and no more memory than the input's size explains."""
    form, rng = FORMATS[name], Random(name)
    for sample in form.samples:
        form.decode(sample)  # good ones are read, or the table is wrong
    for number in range(TRIES):
        data = mutated(rng, form.samples)
        try:
            if number % 8:
                with contextlib.suppress(*form.errors):
                    form.decode(data)
            else:
                _decode_and_measure(form, data)
        except Exception as e:
            raise AssertionError(f"{name}: {type(e).__name__} comes of {data!r}") from e


def _decode_and_measure(form: Format, data: bytes) -> None:
    began = time.process_time()
    tracemalloc.start()
    try:
        with contextlib.suppress(*form.errors):
            form.decode(data)
        used = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert used < MIB + 500 * len(data), used
    assert time.process_time() - began < SECONDS


def test_a_frame_that_says_it_has_up_to_4_gib_is_refused_before_it_comes() -> None:
    """By name, whatever the length says; one that is possible takes the memory of what has come, not of what is said."""
    for length in (wire.MAX_FIRST_FRAME_BYTES + 1, wire.MAX_FRAME_BYTES + 1, 1 << 31, (1 << 32) - 1):
        with pytest.raises(wire.WireError, match=f"a frame of {length} bytes"):
            wire.Decoder(wire.MAX_FIRST_FRAME_BYTES).feed(struct.pack("<II", length, 0))
    tracemalloc.start()
    try:
        decoder = wire.Decoder()
        for _ in range(100):
            assert decoder.feed(struct.pack("<II", wire.MAX_FRAME_BYTES, 0)) == []
        used = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert used < MIB
