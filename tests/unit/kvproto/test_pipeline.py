"""The pipeline's frames: what is sent is what arrives, nothing else gets through, and the bytes stay as they are."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvproto import pipeline
from kvproto.pipeline import Columns, Decoder, Done, FrameError, OperationTuple, Request, ResultTuple
from kvproto.v1 import kv_pb2

u32, u64 = st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1)
operations = st.tuples(st.integers(0, 9), st.binary(max_size=9), st.binary(max_size=30), st.none() | u64)
errors = st.builds(kv_pb2.Error, code=st.sampled_from([2, 4, 9]), message=st.text(max_size=9), found_version=u64)
results = st.tuples(u64, st.binary(max_size=30), st.none()) | st.tuples(st.just(0), st.just(b""), errors)
requests = st.builds(
    Request,
    st.lists(operations, min_size=1, max_size=6),
    id=u64,
    client_id=st.sampled_from([b"", b"0123456789abcdef"]),
    sequence=u64,
    age_ms=u32,
    read_mode=st.integers(0, 3),
    max_lag_ms=u32,
    observed_version=u64,
    timeout_ms=u32,
)
GOLDEN_REQUEST = """
    58000000                          length of what follows: 88
    02 01                             kind: request; version
    30313233343536373839616263646566  client id
    0700000000000000                  id
    0500000000000000                  sequence
    0000000000000000                  observed version: none
    64000000                          first sent 100 ms ago
    00000000                          largest lag: not asked for
    e8030000                          1000 ms left
    02000000                          two operations
    00 01                             read mode: unspecified; there is a client id
    02 82                             kinds: PUT; PUT with an expected version
    0100 0200                         lengths of the keys
    03000000 00000000                 lengths of the values
    0900000000000000                  expected version of the second
    61 6262                           keys: a, bb
    78797a                            values: xyz, nothing
"""
GOLDEN_ONE = """
    4b000000                          length of what follows: 75
    02 01                             kind: request; version
    00000000000000000000000000000000  no client id
    0700000000000000                  id
    0000000000000000                  sequence
    0000000000000000                  observed version: none
    00000000                          first sent now
    00000000                          largest lag: not asked for
    e8030000                          1000 ms left
    01000000                          one operation
    01 00                             read mode: linearizable; there is no client id
    02                                kind: PUT
    0200                              length of the key
    06000000                          length of the value
    6b31                              key: k1
    76616c756531                      value: value1
"""
GOLDEN_RECORD = """
    1d000000                          length of what follows: 29
    03 01                             kind: answer; version
    0700000000000000                  id of the request
    01000000                          one result
    01                                there are values
    0b00000000000000                  its version
    02000000                          length of its value
    6869                              value: hi
"""
GOLDEN_SERIES = """
    17000000                          length of what follows: 23
    03 01                             kind: answer; version
    0700000000000000                  id of the request
    03000000                          three results
    04                                their versions follow each other
    0b00000000000000                  version of the first
"""
GOLDEN_ANSWER = """
    2e000000                          length of what follows: 46
    03 01                             kind: answer; version
    0700000000000000                  id of the request
    02000000                          two results
    03                                there are values and errors
    0b00000000000000                  version of the first
    0000000000000000                  none of the second
    01000000 04000000                 lengths of what stands for them
    00 01                             the second is an error
    76                                the first's value: v
    08021800                          Error{code: NOT_FOUND, found_version: 0}
"""


def octets(annotated: str) -> bytes:
    """The bytes of annotated hex text."""
    return bytes.fromhex("".join(line.strip().split("  ")[0] for line in annotated.splitlines()))


def only_body(data: bytes, kind: int) -> bytes:
    [(found, body)] = Decoder().feed(data)
    assert found == kind
    return body


@given(requests)
def test_a_request_arrives_as_it_was_sent(request: Request) -> None:
    """All fields, with and without expected versions and a client."""
    body = only_body(pipeline.encode_request(request), pipeline.REQUEST)
    assert pipeline.decode_request(body) == request


@given(u64, st.lists(results, min_size=1, max_size=6))
def test_an_answer_arrives_as_it_was_sent(number: int, sent: list[ResultTuple]) -> None:
    """Versions alone, values, errors, in any mixture; in columns if there are several and no error."""
    arrived = pipeline.decode_answer(only_body(pipeline.encode_answer(number, sent), pipeline.ANSWER))
    assert arrived == (number, sent)
    done = all(error is None for _, _, error in sent)
    assert type(arrived[1]) is (Done if done and len(sent) > 1 else list)
    assert pipeline.all_done(arrived[1]) == done


@given(st.lists(st.binary(max_size=40), max_size=5), st.integers(1, 30))
def test_frames_are_found_however_the_bytes_are_cut(bodies: list[bytes], piece: int) -> None:
    """TCP keeps no boundaries."""
    data = b"".join(pipeline.frame(pipeline.END, body) for body in bodies)
    decoder, found = Decoder(), []
    for at in range(0, len(data), piece):
        found += decoder.feed(data[at : at + piece])
    assert found == [(pipeline.END, body) for body in bodies]


def test_the_bytes_of_a_request_stay_as_they_are() -> None:
    """Nodes and clients of different releases speak to each other."""
    sent: list[OperationTuple] = [(2, b"a", b"xyz", None), (2, b"bb", b"", 9)]
    request = Request(sent, 7, b"0123456789abcdef", 5, age_ms=100, timeout_ms=1000)
    assert pipeline.encode_request(request) == octets(GOLDEN_REQUEST)


def test_the_bytes_of_an_answer_stay_as_they_are() -> None:
    """Nodes and clients of different releases speak to each other."""
    error = kv_pb2.Error(code=kv_pb2.ERROR_CODE_NOT_FOUND, found_version=0)
    assert pipeline.encode_answer(7, [(11, b"v", None), (0, b"", error)]) == octets(GOLDEN_ANSWER)


def test_one_operation_and_one_record_have_the_bytes_that_more_have() -> None:
    """Though they are made by one call each."""
    request = Request([(2, b"k1", b"value1", None)], id=7, read_mode=1, timeout_ms=1000)
    assert pipeline.encode_request(request) == octets(GOLDEN_ONE)
    assert pipeline.encode_request(replace(request, operations=Columns(2, [b"k1"], [b"value1"]))) == octets(GOLDEN_ONE)
    assert pipeline.encode_answer(7, [(11, b"hi", None)]) == octets(GOLDEN_RECORD)
    assert pipeline.encode_record(7, 11, b"hi") == octets(GOLDEN_RECORD)


@given(requests)
def test_one_get_is_told_from_everything_else(request: Request) -> None:
    """Whatever else a request asks for, a node must look at."""
    plain = replace(
        request, operations=[(1, b"key", b"", None)], client_id=b"", read_mode=1, max_lag_ms=0, observed_version=0
    )
    assert pipeline.one_get(only_body(pipeline.encode_request(plain), pipeline.REQUEST)) == (request.id, b"key")
    (kind, key, value, expected), *more = request.operations
    is_one = (kind, value, expected, more) == (1, b"", None, []) and not request.client_id
    is_one = is_one and request.read_mode in (0, 1) and not request.max_lag_ms and not request.observed_version
    found = pipeline.one_get(only_body(pipeline.encode_request(request), pipeline.REQUEST))
    assert found == ((request.id, key) if is_one else None)


def test_the_bytes_of_an_answer_to_writes_stay_as_they_are() -> None:
    """Nodes and clients of different releases speak to each other."""
    body = pipeline.encode_series(7, 11, 3)
    assert body == octets(GOLDEN_SERIES)
    done: list[ResultTuple] = [(11, b"", None), (12, b"", None), (13, b"", None)]
    assert pipeline.decode_answer(only_body(body, pipeline.ANSWER)) == (7, done)
    one = only_body(pipeline.encode_series(7, 11, 1), pipeline.ANSWER)
    assert pipeline.decode_answer(one) == (7, [(11, b"", None)])


@given(st.sampled_from([1, 2, 5]), st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=30)), min_size=1))
def test_operations_of_one_kind_are_columns_on_both_sides_and_the_same_bytes(
    kind: int, rows: list[tuple[bytes, bytes]]
) -> None:
    """Whoever sends them in columns sends what another sends one by one."""
    keys, values = zip(*rows, strict=True)
    each: list[OperationTuple] = [(kind, key, value, None) for key, value in rows]
    columns = Columns(kind, keys, values)
    assert pipeline.encode_request(Request(columns, 7)) == pipeline.encode_request(Request(each, 7))
    arrived = pipeline.decode_request(only_body(pipeline.encode_request(Request(each, 7)), pipeline.REQUEST))
    assert type(arrived.operations) is Columns
    assert list(arrived.operations) == each == list(columns)


@given(st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9)), min_size=1), st.data())
def test_columns_are_a_sequence_of_operations(rows: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    """Whoever does not know of columns need not."""
    each: list[OperationTuple] = [(2, key, value, None) for key, value in rows]
    keys, values = zip(*rows, strict=True)
    columns = Columns(2, keys, values)
    at, to = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(0, len(rows)))
    places = data.draw(st.lists(st.sampled_from(range(len(rows)))))
    assert len(columns) == len(each)
    assert columns[at] == each[at]
    assert columns[at:to] == each[at:to]
    assert pipeline.picked(columns, places) == pipeline.picked(each, places) == [each[i] for i in places]
    assert columns != [*each, each[0]]
    assert pipeline.keys_of(columns) == tuple(pipeline.keys_of(each)) == keys


@given(
    st.builds(lambda first, count: range(first, first + count), u64, st.integers(1, 9)) | st.lists(u64, min_size=1),
    st.data(),
)
def test_results_without_an_error_are_a_sequence_of_results(versions: Sequence[int], data: st.DataObject) -> None:
    """Whoever does not know of their columns need not; of versions that follow each other, or do not."""
    count = len(versions)
    values = data.draw(st.lists(st.binary(max_size=9), min_size=count, max_size=count))
    each: list[ResultTuple] = [(version, value, None) for version, value in zip(versions, values, strict=True)]
    done = Done(versions, values)
    at, to = data.draw(st.integers(-count, count - 1)), data.draw(st.integers(0, count))
    assert list(done) == each
    assert len(done) == count
    assert done[at] == each[at]
    assert done[at:to] == each[at:to]
    assert type(done[at:to]) is Done
    assert done.highest == max(versions)
    assert pipeline.all_done(done)
    for other in ([*each, each[0]], [(version + 1, value, None) for version, value, _ in each], each[1:], 7):
        assert done != other


def test_an_answer_that_claims_more_results_than_any_has_is_refused() -> None:
    """A frame of a few bytes can't ask for gigabytes."""
    body = only_body(pipeline.encode_series(7, 1, (1 << 32) - 1), pipeline.ANSWER)
    with pytest.raises(FrameError, match="results"):
        pipeline.decode_answer(body)


@given(st.binary(max_size=120))
def test_nonsense_in_a_frame_is_refused_by_name(body: bytes) -> None:
    """Nothing but FrameError comes out, whatever is in."""
    for decode in (pipeline.decode_request, pipeline.decode_answer):
        try:
            decode(body)
        except FrameError:
            continue


@given(requests, st.data())
def test_a_request_that_is_cut_off_is_refused(request: Request, data: st.DataObject) -> None:
    """However much of it is missing."""
    body = only_body(pipeline.encode_request(request), pipeline.REQUEST)
    with pytest.raises(FrameError):
        pipeline.decode_request(body[: data.draw(st.integers(0, len(body) - 1))])


@pytest.mark.parametrize(
    "head", [b"\xff\xff\xff\xff\x02\x01", b"\x01\x00\x00\x00\x02\x01", b"\x02\x00\x00\x00\x02\x09"]
)
def test_impossible_frames_end_the_decoding(head: bytes) -> None:
    """A length beyond the bound, one too short for its own head, another version."""
    with pytest.raises(FrameError, match="speaks version 1"):
        Decoder().feed(head)
