"""How batches get to a server and answers back.

It is what the engine needs of the network, so that a test or the simulation can stand in for gRPC.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from kvclient.topology import Endpoint
from kvproto.pipeline import Request, ResultTuple
from kvproto.v1 import cluster_pb2


class Receiver(Protocol):
    """Who is told what happens on a stream; called on the event loop, never after `lost` or `close`."""

    def opened(self) -> None:
        """The server is there: batches may be sent. Before this nothing is sent, so nothing can be in doubt."""
        ...

    def answered(self, number: int, results: Sequence[ResultTuple]) -> None:
        """The answer to the request of this id; they come in any order."""
        ...

    def lost(self, reason: str) -> None:
        """The stream has ended, or could not be opened; answers not given by now never come."""
        ...


class BatchStream(Protocol):
    """One Pipeline stream."""

    def send(self, request: Request) -> None:
        """Send after everything sent before; returns at once, and the request may be changed then.

        What is under way is bounded by the caller.
        """
        ...

    def close(self) -> None:
        """Cancel; the receiver is told nothing more."""
        ...


class Transport(Protocol):
    """Opens streams."""

    def open(self, endpoint: Endpoint, receiver: Receiver) -> BatchStream:
        """Begin to connect; returns at once, `receiver` hears of the outcome later."""
        ...

    async def close(self) -> None:
        """Wait until all closed streams have let go of the network."""
        ...


class TopologySource(Protocol):
    """Where the client learns who leads what."""

    def watch(self) -> AsyncIterator[cluster_pb2.Topology]:
        """What is known now and whenever it changes. Never ends by itself, never raises; called once."""
        ...

    def poke(self) -> None:
        """What the client was told looks old: ask again soon. May be called often."""
        ...

    @property
    def trouble(self) -> str:
        """Why nothing was heard yet, for the text of an error; empty when all is well."""
        ...
