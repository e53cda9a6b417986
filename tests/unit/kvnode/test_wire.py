"""Replication frames: what is sent is what arrives, and nothing else gets through."""

import contextlib
import json
import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvcoord.contract import ReplicaId, RunId
from kvnode.core.messages import (
    Ack,
    Append,
    Compacted,
    Go,
    Hello,
    Leave,
    Message,
    Passed,
    Refuse,
    RefuseReason,
    Welcome,
)
from kvnode.core.types import START, Batch, EpochStart, Position
from kvnode.shell.wire import MAX_FRAME_BYTES, Decoder, WireError, decode, encode
from kvstore.batch import RecordType, encode_batch
from kvstore.checksum import crc32c

numbers = st.integers(0, (1 << 63) - 1)
names = st.text(max_size=12)
runs = st.builds(RunId, st.builds(ReplicaId, names, names), names)
positions = st.builds(Position, numbers, numbers)
leases = st.floats(0.5, 60)
starts = st.lists(st.builds(EpochStart, numbers, numbers), max_size=5).map(tuple)


@st.composite
def batches(draw: st.DrawFn) -> tuple[Batch, ...]:
    made: list[Batch] = []
    index, epoch = draw(st.integers(1, 1 << 40)), draw(st.integers(1, 1 << 40))
    for _ in range(draw(st.integers(0, 3))):
        values = draw(st.lists(st.binary(max_size=40), min_size=1, max_size=3))
        records = [(int(RecordType.PUT), b"k", value, 7, 0) for value in values]
        last = index + len(records) - 1
        made.append(Batch(epoch, index, last, encode_batch(epoch, index, index - 1, records)))
        index = last + 1
    return tuple(made)


messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Hello, names, numbers, runs, runs, numbers, positions, numbers, starts, leases),
    st.builds(Welcome, numbers, positions, numbers),
    st.builds(Refuse, numbers, st.sampled_from(RefuseReason)),
    st.builds(Append, numbers, numbers, positions, numbers, batches(), numbers, st.booleans()),
    st.builds(Ack, numbers, numbers, numbers, numbers),
    st.builds(Go, numbers, runs),
    st.builds(Leave, numbers, st.booleans()),
    st.builds(Compacted, numbers, numbers, numbers),
    st.builds(Passed, numbers, numbers),
)


def test_the_first_frame_on_an_accepted_connection_must_be_small() -> None:
    """Whoever has not said who it is can't make a node hold megabytes; afterwards frames may be large."""
    decoder = Decoder(limit=100)
    with pytest.raises(WireError, match="at most 100 are possible here"):
        decoder.feed(frame(bytes(101))[:8])
    decoder = Decoder(limit=100)
    records = [(int(RecordType.PUT), b"k", bytes(1000), 7, 0)]
    batch = Batch(1, 1, 1, encode_batch(1, 1, 0, records))
    large = Append(1, 1, Position(0, 0), 0, (batch,), 0, leased=False)
    assert decoder.feed(encode(Ack(1, 1, 1, 1)) + encode(large)) == [Ack(1, 1, 1, 1), large]


HELLO = Hello("c", 0, RunId(ReplicaId("p", "i"), "r"), RunId(ReplicaId("q", "i"), "r"), 1, START, 0, (), 2.0)


def frame(payload: bytes) -> bytes:
    return struct.pack("<II", len(payload), crc32c(payload)) + payload


def rare(kind: int, body: Any) -> bytes:
    return bytes([kind, 1]) + json.dumps(body).encode()


@given(st.lists(messages, max_size=4), st.integers(1, 50))
def test_messages_arrive_as_they_were_sent(sent: list[Message], piece: int) -> None:
    """However the stream is cut into pieces."""
    stream = b"".join(map(encode, sent))
    decoder = Decoder()
    got = [m for at in range(0, len(stream), piece) for m in decoder.feed(stream[at : at + piece])]
    assert got == sent


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_or_awaited(data: bytes) -> None:
    """Only WireError comes of bytes that are no frames."""
    with contextlib.suppress(WireError):
        assert Decoder().feed(data) == []


@given(st.binary(max_size=200))
def test_random_payloads_are_refused(payload: bytes) -> None:
    """With a right checksum as well."""
    with contextlib.suppress(WireError):
        decode(payload)


@settings(max_examples=300)
@given(messages, st.data())
def test_changed_frames_are_refused_or_awaited(message: Message, data: st.DataObject) -> None:
    """A changed byte never gets through: the checksum or the length is wrong."""
    frame_bytes = bytearray(encode(message))
    at = data.draw(st.integers(0, len(frame_bytes) - 1))
    frame_bytes[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(WireError):
        assert Decoder().feed(bytes(frame_bytes)) == []


@settings(max_examples=300)
@given(messages, st.data())
def test_changed_payloads_are_messages_or_refused(message: Message, data: st.DataObject) -> None:
    """Even a peer that checksums its nonsense causes nothing but WireError, and what gets through can be sent on."""
    payload = bytearray(encode(message)[8:])
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        got = decode(bytes(payload))
    except WireError:
        return
    assert encode(got)


@given(messages, st.data())
def test_cut_frames_are_awaited(message: Message, data: st.DataObject) -> None:
    """Part of a frame is no message yet, and no error."""
    whole = encode(message)
    assert Decoder().feed(whole[: data.draw(st.integers(0, len(whole) - 1))]) == []


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x05",
        b"\x05\x02" + bytes(32),  # a version of tomorrow
        b"\x09\x01{}",
        rare(2, {"epoch": 1, "parting": [1, -1], "commit": 0}),
        rare(2, {"epoch": 1.5, "parting": [1, 1], "commit": 0}),
        rare(2, {"epoch": True, "parting": [1, 1], "commit": 0}),
        rare(2, {"epoch": 1 << 64, "parting": [1, 1], "commit": 0}),
        b'\x02\x01{"epoch": Infinity, "parting": [1, 1], "commit": 0}',
        rare(3, {"epoch": 1, "reason": 99}),
        rare(3, {"epoch": 1, "reason": float("inf")}),
        rare(6, {"epoch": 1, "run": ["a", "b"]}),
        encode(HELLO)[8:].replace(b"2.0}", b"NaN}"),
        rare(7, []),
        rare(7, None),
        b"\x07\x01" + b"[" * 100_000,
    ],
)
def test_impossible_payloads_are_refused(payload: bytes) -> None:
    """Each with WireError."""
    with pytest.raises(WireError):
        Decoder().feed(frame(payload))


def test_a_length_beyond_all_frames_allocates_nothing() -> None:
    """A length of gigabytes is refused by its header alone."""
    tracemalloc.start()
    try:
        with pytest.raises(WireError, match="at most"):
            Decoder().feed(struct.pack("<II", 0xFFFFFFFF, 0) + bytes(100))
        decoder = Decoder()
        decoder.feed(struct.pack("<II", MAX_FRAME_BYTES, 0) + bytes(100))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
