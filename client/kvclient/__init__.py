"""The client library, asyncio and blocking, and the command line tool kvctl. Imports kvproto and kvcommon.

`AsyncClient` and `Client` are the two doors; docs/client.md tells how to use them. Inside: `operations`, `retry`,
`topology` and `units` are pure; `engine`, `lane` and `connection` gather and send; `grpc_transport` and `grpc_source`
are the network.
"""

from kvclient.aio import AsyncClient
from kvclient.blocking import Client
from kvclient.engine import Limits
from kvclient.errors import (
    AlreadyExistsError,
    ClientClosedError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    KVClusterError,
    NotFoundError,
    OutcomeUnknownError,
    ResourceExhaustedError,
    UnavailableError,
    VersionMismatchError,
)
from kvclient.operations import Operation, ReadMode, Record

__all__ = [
    "AlreadyExistsError",
    "AsyncClient",
    "Client",
    "ClientClosedError",
    "DeadlineExceededError",
    "InternalError",
    "InvalidArgumentError",
    "KVClusterError",
    "Limits",
    "NotFoundError",
    "Operation",
    "OutcomeUnknownError",
    "ReadMode",
    "Record",
    "ResourceExhaustedError",
    "UnavailableError",
    "VersionMismatchError",
]
