"""What can go wrong with an operation, as exceptions. Each says what was wrong, with which value, and what to do."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from kvcommon.errors import KVClusterError
from kvproto.v1 import kv_pb2

__all__ = [
    "AlreadyExistsError",
    "ClientClosedError",
    "DeadlineExceededError",
    "InternalError",
    "InvalidArgumentError",
    "KVClusterError",
    "NotFoundError",
    "OutcomeUnknownError",
    "ResourceExhaustedError",
    "UnavailableError",
    "VersionMismatchError",
    "exception_of",
]


class InvalidArgumentError(KVClusterError, ValueError):
    """The request is at fault (a key too long, a value of the wrong type); it was never applied."""


class NotFoundError(KVClusterError):
    """Update or delete of a key that does not exist."""


class AlreadyExistsError(KVClusterError):
    """Create of a key that exists, at `found_version`."""

    def __init__(self, message: str, found_version: int = 0) -> None:
        super().__init__(message)
        self.found_version = found_version


class VersionMismatchError(KVClusterError):
    """The key's version is not the expected one but `found_version`; 0: the key does not exist."""

    def __init__(self, message: str, found_version: int = 0) -> None:
        super().__init__(message)
        self.found_version = found_version


class UnavailableError(KVClusterError):
    """Nobody could serve the operation; a write was certainly not applied and may be tried again."""


class DeadlineExceededError(UnavailableError):
    """The deadline passed; a write was certainly not applied. The text has the last refusal."""


class ResourceExhaustedError(UnavailableError):
    """A queue (this client's or a server's) or a disk is full; a write was certainly not applied."""


class OutcomeUnknownError(KVClusterError):
    """A write may or may not have been applied, or may yet be: read the key to find out before writing it again."""


class InternalError(KVClusterError):
    """A defect or damage on the server's side; the text says which."""


class ClientClosedError(UnavailableError):
    """The client was closed before the operation was sent."""


_CLASSES: Final[Mapping[int, Callable[[str], KVClusterError]]] = MappingProxyType(
    {
        kv_pb2.ERROR_CODE_INVALID_ARGUMENT: InvalidArgumentError,
        kv_pb2.ERROR_CODE_NOT_FOUND: NotFoundError,
        kv_pb2.ERROR_CODE_NOT_LEADER: UnavailableError,
        kv_pb2.ERROR_CODE_MOVED: UnavailableError,
        kv_pb2.ERROR_CODE_UNAVAILABLE: UnavailableError,
        kv_pb2.ERROR_CODE_TOO_FEW_REPLICAS: UnavailableError,
        kv_pb2.ERROR_CODE_TOO_STALE: UnavailableError,
        kv_pb2.ERROR_CODE_OUTCOME_UNKNOWN: OutcomeUnknownError,
        kv_pb2.ERROR_CODE_RESOURCE_EXHAUSTED: ResourceExhaustedError,
        kv_pb2.ERROR_CODE_DEADLINE_EXCEEDED: DeadlineExceededError,
    }
)


def exception_of(error: kv_pb2.Error) -> KVClusterError:
    """The exception that stands for an Error message."""
    if error.code == kv_pb2.ERROR_CODE_ALREADY_EXISTS:
        return AlreadyExistsError(f"{error.message} (its version: {error.found_version})", error.found_version)
    if error.code == kv_pb2.ERROR_CODE_VERSION_MISMATCH:
        found = f"its version: {error.found_version}" if error.found_version else "the key does not exist"
        return VersionMismatchError(
            f"{error.message or 'the version is not the expected one'} ({found})", error.found_version
        )
    return _CLASSES.get(error.code, InternalError)(error.message)
