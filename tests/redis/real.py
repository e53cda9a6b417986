"""A real Redis server, Debian's package, as a local process: the one that ours is compared with."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvlocal.ports import free_ports
from tests.redis.notation import version
from tests.redis.servers import Server
from tests.redis.wire import RawConnection
from tests.support import apt

PROGRAMS = ("redis-server", "redis-cli", "redis-benchmark")
PACKAGES = ("redis-server", "redis-tools")
HOST = "127.0.0.1"
READY_SECONDS = 20.0


def ensure_installed() -> None:
    """Install Debian's Redis if it is missing, as root; otherwise say how."""
    if not all(shutil.which(program) for program in PROGRAMS):
        apt.install(PACKAGES, "these tests need a real Redis and its tools")


def installed_version() -> tuple[int, ...]:
    """Of the redis-server on PATH."""
    said = subprocess.run(["redis-server", "--version"], check=True, capture_output=True, text=True).stdout
    match = re.search(r"v=([0-9.]+)", said)
    assert match is not None, f"no version in {said!r}"
    return version(match.group(1))


@contextmanager
def real_redis(directory: Path, *, cluster: bool) -> Iterator[Server]:
    """A server with one database that keeps nothing on disk; with `cluster` it owns all slots."""
    ensure_installed()
    server = Server(HOST, free_ports(1)[0], installed_version())
    directory.mkdir(parents=True, exist_ok=True)
    arguments = ["--port", str(server.port), "--bind", HOST, "--dir", str(directory), "--databases", "1"]
    arguments += ["--save", "", "--appendonly", "no", "--cluster-enabled", "yes" if cluster else "no"]
    arguments += ["--cluster-port", str(free_ports(1)[0])] if cluster else []
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(["redis-server", *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait_ready(process, server, cluster=cluster)
        yield server
    finally:
        process.kill()
        process.wait()


def _wait_ready(process: subprocess.Popen[bytes], server: Server, *, cluster: bool) -> None:
    deadline = time.monotonic() + READY_SECONDS
    assigned = not cluster
    while True:
        assert process.poll() is None, f"redis-server ended with {process.returncode}"
        assert time.monotonic() < deadline, "redis-server does not serve"
        try:
            with RawConnection(server.address) as connection:
                if not assigned:
                    connection.call(b"CLUSTER", b"ADDSLOTSRANGE", b"0", b"16383")
                    assigned = True
                if connection.call(b"GET", b"k") == b"$-1\r\n":
                    return
        except OSError:
            pass  # it does not listen yet
        time.sleep(0.02)
