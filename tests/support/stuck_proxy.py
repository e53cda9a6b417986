"""A TCP proxy that can stop passing anything on while its connections stay open, as a machine without power does."""

import asyncio
import contextlib


class StuckProxy:
    """In front of one address; `stick()` swallows from then on, `refuse` closes new connections at once."""

    def __init__(self, target: str) -> None:
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))
        self._stuck = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.refuse = False
        self.swallowed = asyncio.Event()
        self.address = ""

    @classmethod
    async def before(cls, target: str) -> "StuckProxy":
        """A running proxy in front of host:port."""
        proxy = cls(target)
        proxy._server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
        proxy.address = f"127.0.0.1:{proxy._server.sockets[0].getsockname()[1]}"
        return proxy

    def stick(self) -> None:
        """Pass nothing on any more."""
        self._stuck = True

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            writer.close()
            return
        there, back = await asyncio.open_connection(*self._target)
        pumps = (self._pump(reader, back), self._pump(there, writer))
        for task in (asyncio.ensure_future(pump) for pump in pumps):
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            try:
                while data := await reader.read(65536):
                    if self._stuck:
                        self.swallowed.set()
                        continue
                    writer.write(data)
                    await writer.drain()
            finally:
                writer.close()
