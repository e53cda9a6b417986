"""A transport in memory: what a protocol writes and does to it, without a socket."""

from typing import Any


class FakeTransport:
    """Keeps what is written; a test plays the network."""

    def __init__(self, full_at: int = 1 << 30) -> None:
        self.written = bytearray()
        self.protocol: Any = None
        self.reading = True
        self.closed = False
        self.full_at = full_at
        self.full = False

    def connect(self, protocol: Any) -> None:
        self.protocol = protocol
        protocol.connection_made(self)

    def take(self) -> bytes:
        """The client reads all that was written."""
        data = bytes(self.written)
        self.written.clear()
        if self.full:
            self.full = False
            self.protocol.resume_writing()
        return data

    # what a protocol calls

    def get_extra_info(self, name: str) -> Any:
        return {"peername": ("10.0.0.9", 5), "sockname": ("10.0.0.1", 6379)}.get(name)

    def set_write_buffer_limits(self, high: int) -> None:
        self.full_at = min(self.full_at, high)

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written += data
        if len(self.written) > self.full_at and not self.full:
            self.full = True
            self.protocol.pause_writing()

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True
        self.protocol.connection_lost(None)
