"""Child processes: started, watched, signalled, started again, and ended with their parent."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kvlocal.launch import Command, Launcher, Process

CONFIGURATION_ERROR = 2  # exit code: starting it again would end the same way
LAST_WORDS = 4096  # bytes of a log looked at for the reason of an exit
RESTART_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
STEADY_SECONDS = 10.0  # up for so long, the next restart is at once again


@dataclass(frozen=True, slots=True)
class Exit:
    """How a child ended by itself or by a signal that was not ours to stop it."""

    name: str
    pid: int
    code: int  # negative: the signal's number
    asked: bool  # a signal of ours was the cause
    restart_in: float | None  # seconds; None: not by itself
    last_words: str = ""

    def __str__(self) -> str:
        """One line for a person."""
        how = f"killed by {signal.Signals(-self.code).name}" if self.code < 0 else f"ended with exit code {self.code}"
        then = "" if self.restart_in is None else "; starting it again"
        why = f": {self.last_words}" if self.last_words and self.code > 0 else ""
        return f"{self.name} (process {self.pid}) was {how}{why}{then}".replace("was ended", "ended")


def last_line(log: Path) -> str:
    """The last thing a process said, without surrounding space; empty when it said nothing."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LAST_WORDS))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


class Child:
    """One child process and its successors. Use it from the main thread: the kernel ties a child to the thread."""

    def __init__(self, command: Command, on_exit: Callable[[Exit], None], launcher: Launcher) -> None:
        self.command = command
        self._on_exit = on_exit
        self._launcher = launcher
        self._process: Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._ending = False  # no successor
        self._held = False  # no successor until `start`
        self._asked = False
        self._quick_exits = 0
        self.gave_up = ""  # why no successor will be started by itself: its last words

    @property
    def pid(self) -> int | None:
        """Process id; None while it is down."""
        return self._process.pid if self._process and not self._process.code.done() else None

    def start(self) -> None:
        """Start it unless it runs; `_watch` keeps it running from then on."""
        self._held = self._ending = False
        if self.pid is None:
            if self._watcher and self._watcher is not asyncio.current_task():
                self._watcher.cancel()
            self._spawn()
            self._watcher = asyncio.create_task(self._watch(), name=f"watch {self.command.name}")

    def _spawn(self) -> None:
        self._asked = False
        self._process = self._launcher.launch(self.command)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while self._process is not None:
            process, began = self._process, loop.time()
            code = await asyncio.shield(process.code)
            if self._ending:
                return
            self._quick_exits = 0 if loop.time() - began > STEADY_SECONDS else self._quick_exits
            delay = RESTART_SECONDS[min(self._quick_exits, len(RESTART_SECONDS) - 1)]
            self._quick_exits += 1
            stays_down = self._held or code == CONFIGURATION_ERROR
            words = last_line(self.command.log)
            self._on_exit(Exit(self.command.name, process.pid, code, self._asked, None if stays_down else delay, words))
            if stays_down:
                self.gave_up = "" if self._held else words
                return
            await asyncio.sleep(delay)
            self._spawn()

    def signal(self, number: signal.Signals, *, hold: bool = False) -> None:
        """Send a signal; with `hold`, if it ends the process, no successor is started until `start` is called.

        Raises ProcessLookupError while the process is down.
        """
        if self._process is None or self.pid is None:
            raise ProcessLookupError(f"{self.command.name} is down: there is nothing to send {number.name} to")
        self._held = hold
        self._asked = number in {signal.SIGKILL, signal.SIGTERM, signal.SIGINT}
        self._process.send(number)

    async def wait_down(self) -> None:
        """Until the present process has ended."""
        if self._process is not None:
            await asyncio.shield(self._process.code)

    async def end(self, grace: float) -> None:
        """End it for good: SIGTERM (and SIGCONT, should it be stopped), SIGKILL after `grace` seconds."""
        self._ending = True
        if self._process is not None:
            try:
                with suppress(ProcessLookupError):
                    self._process.send(signal.SIGTERM)
                    self._process.send(signal.SIGCONT)
                await asyncio.wait_for(self.wait_down(), grace)
            except TimeoutError:
                with suppress(ProcessLookupError):
                    self._process.send(signal.SIGKILL)
                await self.wait_down()
        if self._watcher:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
