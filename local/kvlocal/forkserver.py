"""The fork server: imports the roles once, then forks a process for each order.

Runs as `python -m kvlocal.forkserver <parent pid> <socket> <modules...>`. Forking is safe here because nothing runs
but this thread: the modules are imported and nothing of them is used (gRPC starts its threads with the first channel or server, and
must not have been used before a fork). Should an import start a thread after all, it refuses to serve.

An order is JSON with one descriptor; the answer is the child's process id with a pidfd. When the child has ended, its exit
code (as `subprocess` has it) is written to the order's descriptor.
"""

import ctypes
import gc
import importlib
import json
import os
import selectors
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from kvlocal.child import die_with
from kvlocal.nursery import CODE, MESSAGE_BYTES

PR_SET_NAME = 15  # <sys/prctl.h>
NAME_BYTES = 15


@dataclass(frozen=True, slots=True)
class Order:
    """What a child is to be."""

    name: str
    module: str
    arguments: list[str]
    log: str
    environment: dict[str, str]


@dataclass(frozen=True, slots=True)
class Forked:
    """A child, and where its exit code is to be written."""

    pid: int
    pidfd: int
    code: int


class ForkServer:
    """Serves one parent."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders
        self._selector = selectors.DefaultSelector()
        self._selector.register(orders, selectors.EVENT_READ)

    def serve(self) -> Order | None:
        """Fork until the parent is gone (None); in a child, return what it is to be."""
        while True:
            for key, _ in self._selector.select():
                if isinstance(key.data, Forked):
                    self._ended(key.data)
                    continue
                message, descriptors, _, _ = socket.recv_fds(self._orders, MESSAGE_BYTES, 1)
                if not message:
                    return None
                order = Order(**json.loads(message))
                if self._fork(descriptors[0]):
                    return order

    def _fork(self, code: int) -> bool:
        """True in the child."""
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            die_with(server)
            self._selector.close()
            self._orders.detach()
            return True
        forked = Forked(pid, os.pidfd_open(pid), code)
        self._selector.register(forked.pidfd, selectors.EVENT_READ, forked)
        socket.send_fds(self._orders, [str(pid).encode()], [forked.pidfd])
        return False

    def _ended(self, child: Forked) -> None:
        self._selector.unregister(child.pidfd)
        _, status = os.waitpid(child.pid, 0)
        os.write(child.code, CODE.pack(os.waitstatus_to_exitcode(status)))
        os.close(child.code)
        os.close(child.pidfd)


def become(order: Order) -> None:
    """Make this forked process look as if it had been spawned: own session, log, environment, arguments and name."""
    os.setsid()
    log = os.open(order.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # its siblings' descriptors
    os.environ.clear()
    os.environ.update(order.environment)
    sys.argv = [order.module.partition(".")[0], *order.arguments]
    ctypes.CDLL(None).prctl(PR_SET_NAME, order.name.encode()[-NAME_BYTES:], 0, 0, 0)


def import_quietly(modules: list[str]) -> bool:
    """Import; whether forking is safe then. A module that can't be imported says so better in a process of its own."""
    try:
        for module in modules:
            importlib.import_module(module)
    except Exception:
        return False
    return len(list(Path("/proc/self/task").iterdir())) == 1


def main() -> None:
    """Import, say so, and fork; a child's way leads out of here into its role."""
    parent, descriptor, *modules = sys.argv[1:]
    die_with(int(parent))
    if not import_quietly(modules):
        os._exit(1)  # at once, whatever threads there are: the parent spawns instead
    gc.freeze()  # what is there now is never garbage: collecting it in each child would copy its pages
    orders = socket.socket(fileno=int(descriptor))
    orders.send(b"ready")
    order = ForkServer(orders).serve()
    if order is not None:
        become(order)
        sys.exit(importlib.import_module(order.module).main())


if __name__ == "__main__":
    main()
