"""Single operations without a task per call: what the gRPC server on libnghttp2 calls, and what answers it."""

import asyncio
from collections.abc import Coroutine, Generator, Mapping
from functools import partial
from typing import Any, cast

from google.protobuf.message import DecodeError

from kvclient.operations import CREATE, DELETE, GET, PUT, UPDATE
from kvproto.errors import DETAILS_KEY, status_code, status_details
from kvproto.pipeline import ResultTuple
from kvproto.v1 import kv_pb2
from kvrouter.door import KeyValueDoor
from kvrouter.rpc import wire
from kvrouter.rpc.calls import Begin, DirectCall

_SERVICE = kv_pb2.DESCRIPTOR.services_by_name["KeyValue"].full_name
_UNARY: Mapping[str, tuple[int, Any]] = {
    "Get": (GET, kv_pb2.GetRequest),
    "Put": (PUT, kv_pb2.PutRequest),
    "Create": (CREATE, kv_pb2.CreateRequest),
    "Update": (UPDATE, kv_pb2.UpdateRequest),
    "Delete": (DELETE, kv_pb2.DeleteRequest),
}


class _Waiting:
    """A call that waits for its operation's result; to the client's engine it is the operation's future."""

    __slots__ = ("_call",)

    def __init__(self, call: DirectCall) -> None:
        self._call = call

    def __await__(self) -> Generator[None, None, None]:
        """Nobody waits here: the result comes by `set_result`."""
        yield from ()

    def done(self) -> bool:
        return self._call.gone

    def set_result(self, result: ResultTuple) -> None:
        version, value, error = result
        if error is None:
            self._call.answer(kv_pb2.Record(version=version, value=value).SerializeToString())
        else:
            code = int(status_code(error.code).value[0])
            self._call.fail(code, error.message, ((DETAILS_KEY, status_details(error)),))


class DirectKeyValue:
    """The unary methods of KeyValue, as callbacks."""

    def __init__(self, door: KeyValueDoor) -> None:
        self._door = door
        self._crowded: set[asyncio.Task[ResultTuple]] = set()  # operations for which there was no room at once

    def methods(self) -> Mapping[str, Begin]:
        """By path."""
        return {
            f"/{_SERVICE}/{name}": partial(self._begin, kind, message.FromString)
            for name, (kind, message) in _UNARY.items()
        }

    def _begin(self, kind: int, read: Any, message: bytes, call: DirectCall) -> None:
        try:
            request = read(message)
        except DecodeError as error:
            raise wire.RpcError(wire.INTERNAL, f"the message can't be read: {error}") from error
        waiting = cast("asyncio.Future[ResultTuple]", _Waiting(call))
        begun = self._door.begin(kind, request, call.timeout, waiting)
        if isinstance(begun, tuple):
            waiting.set_result(begun)
        elif begun is not waiting:
            task = asyncio.create_task(cast("Coroutine[None, None, ResultTuple]", begun))
            self._crowded.add(task)
            task.add_done_callback(self._crowded.discard)
