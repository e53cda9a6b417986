"""Our `Error` message as a gRPC status, and back: the one place that knows which code is which.

A status carries the Error packed into `google.rpc.Status.details` (trailing metadata `grpc-status-details-bin`), as
https://grpc.io/docs/guides/error/ (the richer error model) has it, so that clients in any language can read it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from grpc import aio

from kvproto.v1 import kv_pb2

DETAILS_KEY: Final = "grpc-status-details-bin"

_CODES: Final[Mapping[int, grpc.StatusCode]] = MappingProxyType(
    {
        kv_pb2.ERROR_CODE_UNSPECIFIED: grpc.StatusCode.INTERNAL,
        kv_pb2.ERROR_CODE_INVALID_ARGUMENT: grpc.StatusCode.INVALID_ARGUMENT,
        kv_pb2.ERROR_CODE_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        kv_pb2.ERROR_CODE_ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
        kv_pb2.ERROR_CODE_VERSION_MISMATCH: grpc.StatusCode.FAILED_PRECONDITION,
        kv_pb2.ERROR_CODE_NOT_LEADER: grpc.StatusCode.UNAVAILABLE,
        kv_pb2.ERROR_CODE_MOVED: grpc.StatusCode.UNAVAILABLE,
        kv_pb2.ERROR_CODE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
        kv_pb2.ERROR_CODE_TOO_FEW_REPLICAS: grpc.StatusCode.UNAVAILABLE,
        kv_pb2.ERROR_CODE_OUTCOME_UNKNOWN: grpc.StatusCode.UNKNOWN,
        kv_pb2.ERROR_CODE_RESOURCE_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
        kv_pb2.ERROR_CODE_DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
        kv_pb2.ERROR_CODE_TOO_STALE: grpc.StatusCode.UNAVAILABLE,
        kv_pb2.ERROR_CODE_INTERNAL: grpc.StatusCode.INTERNAL,
    }
)

# What a status says that carries no Error of ours: gRPC made it itself. Only codes that gRPC gives before a handler
# has run are taken as "not applied"; whatever may also mean a lost answer is an unknown outcome.
_BARE_CODES: Final[Mapping[grpc.StatusCode, "kv_pb2.ErrorCode.ValueType"]] = MappingProxyType(
    {
        grpc.StatusCode.INVALID_ARGUMENT: kv_pb2.ERROR_CODE_INVALID_ARGUMENT,
        grpc.StatusCode.RESOURCE_EXHAUSTED: kv_pb2.ERROR_CODE_RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNIMPLEMENTED: kv_pb2.ERROR_CODE_INVALID_ARGUMENT,
        grpc.StatusCode.PERMISSION_DENIED: kv_pb2.ERROR_CODE_INVALID_ARGUMENT,
        grpc.StatusCode.UNAUTHENTICATED: kv_pb2.ERROR_CODE_INVALID_ARGUMENT,
    }
)


def status_code(code: int) -> grpc.StatusCode:
    """The gRPC status code of one of our ErrorCodes; INTERNAL for one this version does not know."""
    return _CODES.get(code, grpc.StatusCode.INTERNAL)


def status_details(error: kv_pb2.Error) -> bytes:
    """The serialized google.rpc.Status that carries an Error: the value of the trailing metadata DETAILS_KEY."""
    packed = AnyMessage()
    packed.Pack(error)
    status = Status(code=status_code(error.code).value[0], message=error.message, details=[packed])
    return bytes(status.SerializeToString())


async def abort_with(context: aio.ServicerContext[Any, Any], error: kv_pb2.Error) -> NoReturn:
    """End a call with an Error; raises what `context.abort` raises, always."""
    await context.abort(status_code(error.code), error.message, ((DETAILS_KEY, status_details(error)),))
    raise AssertionError("context.abort returned")


def error_from_rpc(exc: aio.AioRpcError) -> kv_pb2.Error:
    """The Error that a failed call carries, or one made of its status when gRPC itself failed it.

    The latter's code is OUTCOME_UNKNOWN wherever the request may have been done: a caller that only read may try again.
    """
    for key, value in exc.trailing_metadata() or ():
        if key == DETAILS_KEY:
            error = _unpack(value if isinstance(value, bytes) else value.encode("latin-1"))
            if error is not None:
                return error
    code = exc.code()
    message = f"{code.name}: {exc.details() or 'no details given'}"
    return kv_pb2.Error(code=_BARE_CODES.get(code, kv_pb2.ERROR_CODE_OUTCOME_UNKNOWN), message=message)


def _unpack(data: bytes) -> kv_pb2.Error | None:
    status, error = Status(), kv_pb2.Error()
    try:
        status.ParseFromString(data)
        found = any(detail.Unpack(error) for detail in status.details)
    except DecodeError:
        return None
    return error if found else None
