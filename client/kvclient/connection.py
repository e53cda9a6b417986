"""One stream to one endpoint, shared by all lanes that go there."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kvclient.topology import Endpoint
from kvclient.transport import BatchStream, Transport
from kvproto.pipeline import Request, ResultTuple

if TYPE_CHECKING:
    from kvclient.batch import Batch
    from kvclient.lane import Lane


class Connection:
    """A stream, the lanes that use it and the batches it owes answers to. It is a `transport.Receiver`."""

    __slots__ = ("_on_lost", "_stream", "endpoint", "inflight", "is_open", "lanes")

    def __init__(self, endpoint: Endpoint, on_lost: Callable[["Connection", str], None]) -> None:
        self.endpoint = endpoint
        self.is_open = False
        self.lanes: dict[Lane, None] = {}  # a set that keeps its order, so that simulations repeat
        self.inflight: dict[int, Batch] = {}
        self._stream: BatchStream | None = None
        self._on_lost = on_lost

    def connect(self, transport: Transport) -> None:
        """Begin to connect."""
        self._stream = transport.open(self.endpoint, self)

    def send(self, batch: "Batch", request: Request) -> None:
        """Send a batch whose answer its lane will hear of."""
        assert self._stream is not None
        self.inflight[request.id] = batch
        self._stream.send(request)

    def close(self) -> None:
        """Cancel the stream; answers that were owed never come."""
        self.is_open = False
        self.inflight.clear()
        if self._stream is not None:
            self._stream.close()

    def opened(self) -> None:
        self.is_open = True
        for lane in tuple(self.lanes):
            lane.pump()

    def answered(self, number: int, results: Sequence[ResultTuple]) -> None:
        batch = self.inflight.pop(number, None)
        if batch is not None:
            batch.lane.answered(batch, results)

    def lost(self, reason: str) -> None:
        self.is_open = False
        self.inflight.clear()
        self._on_lost(self, reason)
