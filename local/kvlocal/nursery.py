"""One process that has imported the roles and forks every child: `kvlocal.forkserver`, seen from its parent.

Ten processes that each import grpc, aiohttp and pydantic take about ten seconds of CPU time before they do anything;
forked from one that has imported them they take one.
"""

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from contextlib import suppress

from kvlocal.launch import Command, Process, Spawner

ROLES = ("kvnode.main", "kvrouter.main")
REPLY_SECONDS = 10.0  # a fork takes milliseconds
MESSAGE_BYTES = 1 << 17
CODE = struct.Struct("<i")


class Nursery:
    """Starts processes by the fork server; one by one, as `Spawner` does, where there is none or it has died.

    It imports while its parent goes on; `ready` waits for it. Its children die with it, and it with its parent.
    """

    def __init__(self, modules: tuple[str, ...] = ROLES) -> None:
        """Start the fork server, which imports `modules`."""
        self._spawner = Spawner()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "kvlocal.forkserver", str(os.getpid()), str(theirs.fileno()), *modules],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a Ctrl-C in the terminal is for the parent
            )
        self._orders: socket.socket | None = ours
        self._imported = False

    @property
    def pid(self) -> int | None:
        """The fork server's process id; None where there is none."""
        return self._server.pid if self._orders else None

    async def ready(self) -> None:
        """Until it has imported what its children need, or has refused to serve."""
        if self._orders is None or self._imported:
            return
        self._orders.setblocking(False)
        if await asyncio.get_running_loop().sock_recv(self._orders, MESSAGE_BYTES):
            self._orders.settimeout(REPLY_SECONDS)
            self._imported = True
        else:
            self.close()

    def launch(self, command: Command) -> Process:
        """Start a process, in milliseconds once `ready`."""
        process = self._fork(command) if self._imported else None
        return process or self._spawner.launch(command)

    def _fork(self, command: Command) -> Process | None:
        if self._orders is None:
            return None
        order = {
            "name": command.name,
            "module": command.module,
            "arguments": command.arguments,
            "log": str(command.log.absolute()),
            "environment": command.whole_environment,
        }
        ends, code = os.pipe()
        try:
            socket.send_fds(self._orders, [json.dumps(order).encode()], [code])
            reply, descriptors, _, _ = socket.recv_fds(self._orders, MESSAGE_BYTES, 1)
        except OSError:  # it is gone, and with it every child that it had
            reply, descriptors = b"", []
        os.close(code)
        if not reply:
            os.close(ends)
            self.close()
            return None
        return Process(int(reply), descriptors[0], ends, lambda: _code(os.read(ends, CODE.size)))

    def close(self) -> None:
        """End the fork server."""
        if self._orders is not None:
            self._orders.close()
            self._orders = None
            with suppress(ProcessLookupError):
                self._server.kill()
            self._server.wait()


def _code(said: bytes) -> int:
    """An exit code as the fork server said it; it said none if it died, and then the child was killed with it."""
    return int(CODE.unpack(said)[0]) if len(said) == CODE.size else -signal.SIGKILL
