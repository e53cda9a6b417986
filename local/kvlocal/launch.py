"""How a child process comes to be: what every way of starting one gives back, and the plain way, `Spawner`."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Command:
    """What a child runs: a module with a `main()`, its arguments, and where it writes what it says."""

    name: str
    module: str
    arguments: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def whole_environment(self) -> dict[str, str]:
        """This process's, without the settings that are meant for other nodes; how to log is for all."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("KV_") or k.startswith("KV_LOG_")}
        return {**inherited, "PYTHONUNBUFFERED": "1", **self.environment}


class Process:
    """A started process and its end, seen through descriptors: no thread, no signal handler, any event loop."""

    def __init__(self, pid: int, pidfd: int, ends: int, reap: Callable[[], int]) -> None:
        """`pidfd` and `ends` are closed at the end; `ends` becomes readable then, and `reap` tells the exit code."""
        self.pid = pid
        self.code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._pidfd, self._ends, self._reap = pidfd, ends, reap
        asyncio.get_running_loop().add_reader(ends, self._ended)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to this very process, whoever has its number by now; ProcessLookupError when it has ended."""
        if self.code.done():
            raise ProcessLookupError(f"process {self.pid} has ended")
        signal.pidfd_send_signal(self._pidfd, number)

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._ends)
        code = self._reap()
        for descriptor in {self._ends, self._pidfd}:
            os.close(descriptor)
        self.code.set_result(code)


class Launcher(Protocol):
    """A way to start processes."""

    async def ready(self) -> None:
        """Until `launch` is quick."""
        ...

    def launch(self, command: Command) -> Process:
        """Start a process; to be called from the main thread: the kernel ties a child to the thread."""
        ...

    def close(self) -> None:
        """Nothing more is to be started; what was started has ended."""
        ...


class Spawner:
    """A new interpreter for each process: about a second of CPU time before it does anything."""

    async def ready(self) -> None:
        """At once."""

    def launch(self, command: Command) -> Process:
        """Start it."""
        with command.log.open("ab") as log:
            popen = subprocess.Popen(
                [sys.executable, "-m", "kvlocal.child", str(os.getpid()), command.module, *command.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=command.whole_environment,
                start_new_session=True,  # a Ctrl-C in the terminal is for the parent
            )
        pidfd = os.pidfd_open(popen.pid)
        return Process(popen.pid, pidfd, pidfd, popen.wait)

    def close(self) -> None:
        """Nothing to do."""
