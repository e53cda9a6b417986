"""The sketch of ../shared/sketches as a yardstick: what Python replicates and syncs with nothing that makes it safe.

No recovery, no epochs, no checks, no bounds: single commands of the Redis protocol, a leader and two followers.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from kvlocal.ports import free_ports

SKETCH = Path(__file__).parents[2] / "shared" / "sketches" / "replicated_resp.py"
START_SECONDS = 20.0


@asynccontextmanager
async def sketch(folder: Path) -> AsyncIterator[int | None]:
    """Three of its processes with their logs in `folder`; the leader's port. None: it is not on this machine."""
    if not SKETCH.is_file():
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    leader, *others = (
        (str(port), str(replication)) for port, replication in zip(*[iter(free_ports(6))] * 2, strict=True)
    )
    async with AsyncExitStack() as stack:
        for ports in others:
            await _started(stack, folder, *ports, "")
        await _started(stack, folder, *leader, ",".join(replication for _, replication in others))
        yield int(leader[0])


async def _started(stack: AsyncExitStack, folder: Path, port: str, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, str(SKETCH), port, *arguments, cwd=folder)
    stack.push_async_callback(process.wait)
    stack.callback(process.kill)
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", int(port))
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
