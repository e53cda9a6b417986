import grpc
import pytest
from grpc import aio

from kvproto.errors import DETAILS_KEY, abort_with, error_from_rpc, status_code
from kvproto.v1 import kv_pb2, kv_pb2_grpc

ERROR = kv_pb2.Error(
    code=kv_pb2.ERROR_CODE_VERSION_MISMATCH, message="expected 1, found 7", found_version=7, leader="a:1", partition=2
)


def test_every_error_code_has_a_status_of_its_own_that_is_never_ok() -> None:
    for code in kv_pb2.ErrorCode.values():
        assert status_code(code) is not grpc.StatusCode.OK
    assert status_code(9999) is grpc.StatusCode.INTERNAL


async def test_an_error_crosses_a_real_call_whole() -> None:
    async def get(_: kv_pb2.GetRequest, context: aio.ServicerContext[kv_pb2.GetRequest, kv_pb2.Record]) -> None:
        await abort_with(context, ERROR)

    server = aio.server()
    handler = grpc.unary_unary_rpc_method_handler(get, kv_pb2.GetRequest.FromString, kv_pb2.Record.SerializeToString)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("kvcluster.v1.KeyValue", {"Get": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(aio.AioRpcError) as caught:
                await kv_pb2_grpc.KeyValueStub(channel).Get(kv_pb2.GetRequest(key=b"k"))
    finally:
        await server.stop(None)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details() == "expected 1, found 7"
    assert error_from_rpc(caught.value) == ERROR


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (grpc.StatusCode.UNAVAILABLE, kv_pb2.ERROR_CODE_OUTCOME_UNKNOWN),
        (grpc.StatusCode.DEADLINE_EXCEEDED, kv_pb2.ERROR_CODE_OUTCOME_UNKNOWN),
        (grpc.StatusCode.INVALID_ARGUMENT, kv_pb2.ERROR_CODE_INVALID_ARGUMENT),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, kv_pb2.ERROR_CODE_RESOURCE_EXHAUSTED),
    ],
)
def test_a_status_without_our_error_promises_nothing_that_grpc_does_not(status: grpc.StatusCode, code: int) -> None:
    exc = aio.AioRpcError(status, aio.Metadata(), aio.Metadata(), "gone")
    assert error_from_rpc(exc).code == code


def test_damaged_details_are_not_believed() -> None:
    exc = aio.AioRpcError(grpc.StatusCode.UNKNOWN, aio.Metadata(), aio.Metadata((DETAILS_KEY, b"\xff\xff")), "odd")
    assert error_from_rpc(exc).message == "UNKNOWN: odd"
