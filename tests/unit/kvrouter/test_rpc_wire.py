"""gRPC's rules over HTTP/2."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvrouter.rpc import wire
from tests.support.rpc_pair import HEADERS, framed

CALL = (*HEADERS, (b":path", b"/a.B/C"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(b"1H", 3600), (b"2M", 120), (b"3S", 3), (b"4500m", 4.5), (b"99999999u", 99.999999), (b"0n", 0)],
)
def test_a_timeout_is_read(text: bytes, seconds: float) -> None:
    assert wire.read_timeout(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", [b"", b"S", b"1", b"1s", b"-1S", b"1.5S", b"123456789S", b"\xb2S"])
def test_a_timeout_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(wire.RpcError, match="can't be read"):
        wire.read_timeout(text)


def test_a_request_says_where_it_goes_and_until_when() -> None:
    request = wire.read_request([*CALL, (b"grpc-timeout", b"250m")])
    assert request is not None
    assert (request.path, request.timeout) == (b"/a.B/C", 0.25)


@pytest.mark.parametrize(
    "headers", [[*CALL, (b":method", b"GET")], [*CALL, (b"content-type", b"text/html")], [(b":method", b"POST")]]
)
def test_what_is_no_grpc_is_not_taken_for_it(headers: wire.Headers) -> None:
    assert wire.read_request(headers) is None


def test_compressed_messages_are_refused() -> None:
    with pytest.raises(wire.RpcError, match="gzip") as caught:
        wire.read_request([*CALL, (b"grpc-encoding", b"gzip")])
    assert caught.value.code == wire.UNIMPLEMENTED


def test_a_status_is_told_in_trailers() -> None:
    trailers = wire.status(5, "no 100% ä\n", (("grpc-status-details-bin", b"\0\1"), ("plain", "text")))
    assert trailers == [
        (b"grpc-status", b"5"),
        (b"grpc-message", b"no 100%25 %C3%A4%0A"),
        (b"grpc-status-details-bin", b"AAE"),
        (b"plain", b"text"),
    ]


@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(0, 400), max_size=12))
def test_messages_come_out_as_they_went_in_wherever_they_are_cut(messages: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(map(framed, messages))
    edges = [0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]
    reader = wire.Messages(40)
    found = [m for at, end in pairwise(edges) for m in reader.feed(whole[at:end])]
    assert found == messages
    assert reader.held == 0


def test_a_message_that_is_too_long_is_refused_before_it_comes() -> None:
    with pytest.raises(wire.RpcError, match="41 bytes") as caught:
        wire.Messages(40).feed(b"\0\0\0\0\x29")
    assert caught.value.code == wire.RESOURCE_EXHAUSTED
