"""Asking a process over HTTP, without an HTTP library: /readyz, /status."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvlocal.ports import HOST

ANSWER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int
    body: str


async def ask(port: int, path: str, timeout: float = 1.0, *, host: str = HOST) -> Answer | None:
    """GET; None when there was no answer within `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                head, _, body = (await reader.read(ANSWER_BYTES)).partition(b"\r\n\r\n")
                while more := await reader.read(ANSWER_BYTES):
                    body += more
            finally:
                writer.close()
        return Answer(int(head.split(b" ", 2)[1]), body.decode(errors="replace").strip())
    except (OSError, TimeoutError, ValueError, IndexError):
        return None


async def ready(port: int, *, host: str = HOST) -> str:
    """Empty when the process says it is ready, else why not."""
    answer = await ask(port, "/readyz", host=host)
    if answer is None:
        return "does not answer"
    return "" if answer.status == 200 else answer.body or f"HTTP {answer.status}"


async def status(port: int, *, host: str = HOST) -> Mapping[str, Any] | None:
    """What the process says of itself; None when it does not answer or says no JSON object."""
    answer = await ask(port, "/status", host=host)
    if answer is None or answer.status != 200:
        return None
    try:
        said = json.loads(answer.body)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None
