"""Real ZooKeeper servers as local processes, from Debian's package, to be killed and paused at will.

    with running_ensemble(directory, members=3) as ensemble:
        open_coordination(ensemble.url("/kvcluster/test"))
        ensemble.members[0].kill()

Every server has little memory, its data below `directory`, and keeps its ports over restarts.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from kvlocal.ports import free_ports
from tests.support import apt

JAR = Path("/usr/share/java/zookeeper.jar")
LOG_JAR = Path("/usr/share/java/slf4j-simple.jar")
JAVA = Path("/usr/bin/java")
PACKAGES = ("libzookeeper-java", "default-jre-headless")
TICK_MS = 500
READY_TIMEOUT = 60.0


class Place(NamedTuple):
    """Where a server runs: its address, and the command that its own follows (one that enters a network namespace)."""

    address: str
    prefix: tuple[str, ...] = ()


HERE = Place("127.0.0.1")


def ensure_installed() -> None:
    """Install Debian's ZooKeeper and a Java runtime if they are missing, as root; otherwise say how."""
    if JAR.exists() and JAVA.exists() and LOG_JAR.exists():
        return
    packages = [package for package, there in zip(PACKAGES, (JAR.exists(), JAVA.exists()), strict=True) if not there]
    packages += [] if LOG_JAR.exists() else ["libslf4j-java"]
    apt.install(packages, "these tests need a ZooKeeper server")


class Member:
    """One server."""

    def __init__(self, directory: Path, ident: int, ports: list[tuple[int, int, int]], places: Sequence[Place]) -> None:
        """`ports` are (client, quorum, election) of all members, `places` where each runs."""
        self.directory = directory
        self.address, self._prefix = places[ident - 1]
        self.client_port = ports[ident - 1][0]
        self._process: subprocess.Popen[bytes] | None = None
        (directory / "data").mkdir(parents=True)
        (directory / "data" / "myid").write_text(f"{ident}\n")
        lines = [
            f"tickTime={TICK_MS}",
            "initLimit=20",
            "syncLimit=10",
            f"dataDir={directory / 'data'}",
            f"clientPort={self.client_port}",
            f"clientPortAddress={self.address}",
            "admin.enableServer=false",
            "4lw.commands.whitelist=srvr",
            "maxClientCnxns=0",
        ]
        if len(ports) > 1:
            lines += [
                f"server.{i}={places[i - 1].address}:{quorum}:{vote}" for i, (_, quorum, vote) in enumerate(ports, 1)
            ]
        (directory / "zoo.cfg").write_text("\n".join(lines) + "\n")

    @property
    def pid(self) -> int:
        """The process; there must be one."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether there is a process, paused or not."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process; see `wait_serving`."""
        assert not self.running, "runs already"
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._prefix,
                    str(JAVA),
                    "-Xmx64m",
                    "-XX:+UseSerialGC",
                    "-XX:TieredStopAtLevel=1",
                    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                    "-cp",
                    f"{JAR}:{LOG_JAR}",
                    "org.apache.zookeeper.server.quorum.QuorumPeerMain",
                    str(self.directory / "zoo.cfg"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """SIGKILL, and wait for the end; nothing if it does not run."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def pause(self) -> None:
        """SIGSTOP: connections stay, answers stop."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def mode(self) -> str | None:
        """standalone, leader or follower while it serves, otherwise None."""
        try:
            with socket.create_connection((self.address, self.client_port), timeout=1) as connection:
                connection.sendall(b"srvr")
                connection.settimeout(1)
                answer = b"".join(iter(lambda: connection.recv(4096), b""))
        except OSError:
            return None
        for line in answer.decode().splitlines():
            if line.startswith("Mode: "):
                return line.removeprefix("Mode: ")
        return None

    def log_tail(self) -> str:
        """The end of what the server logged."""
        return (self.directory / "log").read_text(errors="replace")[-3000:]


class Ensemble:
    """One or more servers."""

    def __init__(self, directory: Path, members: int, places: Sequence[Place] | None = None) -> None:
        """Made, not started. `places`: where each member runs, when not all on this machine's loopback."""
        ports = free_ports(members * 3)
        triples = [(ports[3 * i], ports[3 * i + 1], ports[3 * i + 2]) for i in range(members)]
        self.members = tuple(
            Member(directory / f"zk{i}", i, triples, places or [HERE] * members) for i in range(1, members + 1)
        )

    @property
    def hosts(self) -> str:
        """host:port,... of the members."""
        return ",".join(f"{member.address}:{member.client_port}" for member in self.members)

    def url(self, path: str) -> str:
        """The coordination URL of a path."""
        return f"zookeeper://{self.hosts}{path}"

    def start(self) -> None:
        """Start what does not run and wait until every member serves."""
        for member in self.members:
            if not member.running:
                member.start()
        self.wait_serving()

    def kill(self) -> None:
        """Kill every member."""
        for member in self.members:
            member.kill()

    def wipe(self) -> None:
        """Kill every member and lose all data; `start` then starts an empty ensemble at the same addresses."""
        self.kill()
        for member in self.members:
            shutil.rmtree(member.directory / "data" / "version-2", ignore_errors=True)

    def leader(self) -> Member:
        """The member that leads, or the only one."""
        return next(member for member in self.members if member.mode() in ("leader", "standalone"))

    def wait_serving(self, timeout: float = READY_TIMEOUT) -> None:
        """Block until every member serves; at most `timeout` seconds."""
        deadline = time.monotonic() + timeout
        for member in self.members:
            while member.mode() is None:
                if not member.running or time.monotonic() > deadline:
                    raise AssertionError(f"{member.directory.name} does not serve; its log ends:\n{member.log_tail()}")
                time.sleep(0.05)


@contextmanager
def running_ensemble(directory: Path, members: int = 1) -> Iterator[Ensemble]:
    """Servers that serve, ended on leaving."""
    ensure_installed()
    ensemble = Ensemble(directory, members)
    try:
        ensemble.start()
        yield ensemble
    finally:
        ensemble.kill()


@pytest.fixture(scope="session")
def zookeeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ensemble]:
    """One server for all tests that leave it alone; import this name into a test module to use it."""
    with running_ensemble(tmp_path_factory.mktemp("zookeeper")) as ensemble:
        yield ensemble
