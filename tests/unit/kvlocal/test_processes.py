"""Children: started, watched, started again, ended."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kvlocal.processes import Child, Command, Exit, last_line

LIVES = "import pathlib, signal, sys\n\n\ndef main():\n    print('up', flush=True)\n    signal.pause()\n"
REFUSES = "import sys\n\n\ndef main():\n    sys.exit('the disk is another cluster\\'s')\n"


@pytest.fixture
def roles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules that children can be."""
    (tmp_path / "lives.py").write_text(LIVES)
    (tmp_path / "refuses.py").write_text(REFUSES.replace("sys.exit(", "print(").replace("')", "'); sys.exit(2)"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("KV_POD", "not-for-children")
    return tmp_path


class Exits(list[Exit]):
    """What was heard, and an event for each."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = asyncio.Event()

    def __call__(self, one: Exit) -> None:
        self.append(one)
        self.heard.set()


async def said(log: Path, times: int) -> None:
    """Until the child has said "up" so many times."""
    async with asyncio.timeout(20):
        while not log.exists() or log.read_text().count("up") < times:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)


async def test_a_child_that_dies_is_started_again_and_it_is_said(roles: Path) -> None:
    """By itself, in a moment."""
    exits = Exits()
    child = Child(Command("n", "lives", (), roles / "log"), exits)
    child.start()
    await said(roles / "log", 1)

    child.signal(signal.SIGKILL)
    await said(roles / "log", 2)

    assert exits[0].code == -signal.SIGKILL
    assert "n (process" in str(exits[0])
    assert "killed by SIGKILL; starting it again" in str(exits[0])
    await child.end(5)


async def test_a_held_child_stays_down_until_started(roles: Path) -> None:
    """For a failover that is looked at in peace."""
    exits = Exits()
    child = Child(Command("n", "lives", (), roles / "log"), exits)
    child.start()
    await said(roles / "log", 1)

    child.signal(signal.SIGKILL, hold=True)
    await exits.heard.wait()
    assert child.pid is None
    assert exits[0].restart_in is None
    with pytest.raises(ProcessLookupError, match="n is down"):
        child.signal(signal.SIGSTOP)

    child.start()
    await said(roles / "log", 2)
    await child.end(5)


async def test_a_configuration_error_is_not_tried_again(roles: Path) -> None:
    """Its last words are kept."""
    exits = Exits()
    child = Child(Command("n", "refuses", (), roles / "log"), exits)
    child.start()

    await exits.heard.wait()

    assert exits[0].restart_in is None
    assert str(exits[0]).endswith("ended with exit code 2: the disk is another cluster's")
    await asyncio.sleep(0)
    assert child.gave_up == "the disk is another cluster's"
    await child.end(5)


async def test_a_frozen_child_is_ended(roles: Path) -> None:
    """SIGTERM alone would wait for its thaw."""
    child = Child(Command("n", "lives", (), roles / "log"), Exits())
    child.start()
    await said(roles / "log", 1)
    child.signal(signal.SIGSTOP)

    await child.end(5)

    assert child.pid is None


def test_children_die_with_their_parent(roles: Path) -> None:
    """Even when it is killed."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(roles)], stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    descriptor = os.pidfd_open(pid)

    parent.kill()
    parent.wait()

    async def gone() -> None:
        done = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, done.set)
        await asyncio.wait_for(done.wait(), 10)

    asyncio.run(gone())
    os.close(descriptor)


PARENT = """
import asyncio, pathlib, sys
from kvlocal.processes import Child, Command

async def main():
    folder = pathlib.Path(sys.argv[1])
    child = Child(Command("n", "lives", (), folder / "log"), print)
    child.start()
    while not (folder / "log").exists() or "up" not in (folder / "log").read_text():
        await asyncio.sleep(0.01)
    print(child.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_the_last_line_is_what_was_said_last(tmp_path: Path) -> None:
    """Without empty lines; nothing when there is no log."""
    (tmp_path / "log").write_text("one\ntwo \n\n")

    assert last_line(tmp_path / "log") == "two"
    assert last_line(tmp_path / "missing") == ""
