"""Ports of 127.0.0.1 that stay the same from run to run."""

import random
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing

from kvcommon.errors import ConfigurationError

HOST = "127.0.0.1"
# Below the range that Linux gives to outgoing connections (32768 and up): a node that is down keeps its port.
FIRST, LAST = 21000, 31999
ATTEMPTS = 1000


def is_free(port: int) -> bool:
    """Whether somebody could listen on the port now."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is no obstacle
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def assign(
    names: Iterable[str],
    remembered: Mapping[str, int],
    wanted: Mapping[str, int],
    rng: random.Random,
    free: Callable[[int], bool] = is_free,
) -> dict[str, int]:
    """A port for each name: the remembered one, else the wanted one, else any; each only if it is free.

    Raises ConfigurationError when hardly a port is free.
    """
    taken: set[int] = set()
    chosen: dict[str, int] = {}

    def usable(port: int | None) -> bool:
        return port is not None and port not in taken and free(port)

    def any_port() -> int:
        for _ in range(ATTEMPTS):
            if usable(port := rng.randint(FIRST, LAST)):
                return port
        raise ConfigurationError(f"no free port on {HOST} between {FIRST} and {LAST}: end what listens there")

    for name in names:
        candidates = (remembered.get(name), wanted.get(name))
        port = next((p for p in candidates if p is not None and usable(p)), None) or any_port()
        taken.add(port)
        chosen[name] = port
    return chosen


def free_ports(count: int) -> list[int]:
    """So many different ports that were free just now, and that no outgoing connection gets. Raises ConfigurationError."""
    return list(assign(map(str, range(count)), {}, {}, random.Random()).values())
