"""Children: started, watched, started again, ended."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kvlocal.launch import Command, Launcher, Spawner
from kvlocal.nursery import Nursery
from kvlocal.processes import Child, Exit, last_line

LIVES = "import pathlib, signal, sys\n\n\ndef main():\n    print('up', flush=True)\n    signal.pause()\n"
REFUSES = "import sys\n\n\ndef main():\n    sys.exit('the disk is another cluster\\'s')\n"


TELLS = """
import json, os, signal, sys

def main():
    told = {
        "arguments": sys.argv,
        "pid": os.getpid(),
        "session": os.getsid(0),
        "settings": {k: v for k, v in os.environ.items() if k.startswith("KV_")},
        "files": [n for n in range(20) if os.path.exists(f"/proc/self/fd/{n}")],
    }
    print(json.dumps(told), flush=True)
    print("up", flush=True)
    signal.pause()
"""


@pytest.fixture
def roles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules that children can be."""
    (tmp_path / "lives.py").write_text(LIVES)
    (tmp_path / "refuses.py").write_text(REFUSES.replace("sys.exit(", "print(").replace("')", "'); sys.exit(2)"))
    (tmp_path / "fails.py").write_text("import sys\n\n\ndef main():\n    sys.exit(7)\n")
    (tmp_path / "threads.py").write_text(
        "import threading\n\nthreading.Thread(target=threading.Event().wait).start()\n"
    )
    (tmp_path / "tells.py").write_text(TELLS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("KV_POD", "not-for-children")
    return tmp_path


@pytest.fixture(params=["spawned", "forked"])
async def launcher(request: pytest.FixtureRequest, roles: Path) -> AsyncIterator[Launcher]:
    """Both ways of starting a process."""
    launcher: Launcher = Spawner() if request.param == "spawned" else Nursery(("lives",))
    await launcher.ready()
    yield launcher
    launcher.close()


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


async def test_a_child_that_dies_is_started_again_and_it_is_said(roles: Path, launcher: Launcher) -> None:
    """By itself, in a moment."""
    exits = Exits()
    child = Child(Command("n", "lives", (), roles / "log"), exits, launcher)
    child.start()
    await said(roles / "log", 1)

    child.signal(signal.SIGKILL)
    await said(roles / "log", 2)

    assert exits[0].code == -signal.SIGKILL
    assert "n (process" in str(exits[0])
    assert "killed by SIGKILL; starting it again" in str(exits[0])
    await child.end(5)


async def test_a_held_child_stays_down_until_started(roles: Path, launcher: Launcher) -> None:
    """For a failover that is looked at in peace."""
    exits = Exits()
    child = Child(Command("n", "lives", (), roles / "log"), exits, launcher)
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


async def test_a_configuration_error_is_not_tried_again(roles: Path, launcher: Launcher) -> None:
    """Its last words are kept."""
    exits = Exits()
    child = Child(Command("n", "refuses", (), roles / "log"), exits, launcher)
    child.start()

    await exits.heard.wait()

    assert exits[0].restart_in is None
    assert str(exits[0]).endswith("ended with exit code 2: the disk is another cluster's")
    await asyncio.sleep(0)
    assert child.gave_up == "the disk is another cluster's"
    await child.end(5)


async def test_a_frozen_child_is_ended(roles: Path, launcher: Launcher) -> None:
    """SIGTERM alone would wait for its thaw."""
    child = Child(Command("n", "lives", (), roles / "log"), Exits(), launcher)
    child.start()
    await said(roles / "log", 1)
    child.signal(signal.SIGSTOP)

    await child.end(5)

    assert child.pid is None


async def test_a_child_is_what_its_command_says(roles: Path, launcher: Launcher) -> None:
    """A process of its own with its own session, arguments, environment and log, and nothing of its siblings or its parent's settings."""
    log = roles / "log"
    sibling = Child(Command("other", "lives", (), roles / "other"), Exits(), launcher)
    sibling.start()
    child = Child(Command("me", "tells", ("--a", "b"), log, {"KV_TERMINATION_LOG": "there"}), Exits(), launcher)

    child.start()
    pid = child.pid
    await said(log, 1)

    told = json.loads(log.read_text().splitlines()[0])
    assert told["arguments"] == ["tells", "--a", "b"]
    assert (told["pid"], told["session"]) == (pid, pid)
    assert told["settings"] == {"KV_TERMINATION_LOG": "there"}
    assert told["files"] == [0, 1, 2]
    await asyncio.gather(child.end(5), sibling.end(5))


async def test_an_exit_code_is_told(roles: Path, launcher: Launcher) -> None:
    """Whatever it is."""
    exits = Exits()
    child = Child(Command("n", "fails", (), roles / "log"), exits, launcher)
    child.start()

    await exits.heard.wait()

    assert exits[0].code == 7
    await child.end(5)


async def test_without_its_fork_server_a_child_is_started_all_the_same(roles: Path) -> None:
    """It dies with the server, which is noticed, and its successor is spawned."""
    exits, nursery = Exits(), Nursery(("lives",))
    await nursery.ready()
    child = Child(Command("n", "lives", (), roles / "log"), exits, nursery)
    child.start()
    await said(roles / "log", 1)
    assert nursery.pid is not None

    os.kill(nursery.pid, signal.SIGKILL)
    await said(roles / "log", 2)

    assert exits[0].code == -signal.SIGKILL
    assert nursery.pid is None
    await child.end(5)


async def test_no_fork_after_an_import_that_started_a_thread(roles: Path) -> None:
    """What a thread holds while its process is forked is held for ever in the child: children are spawned instead."""
    nursery = Nursery(("threads",))

    await nursery.ready()

    assert nursery.pid is None
    child = Child(Command("n", "lives", (), roles / "log"), Exits(), nursery)
    child.start()
    await said(roles / "log", 1)
    await child.end(5)


@pytest.mark.parametrize("launcher", ["Spawner()", "Nursery(('lives',))"])
def test_children_die_with_their_parent(roles: Path, launcher: str) -> None:
    """Even when it is killed."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.replace("LAUNCHER", launcher), str(roles)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ},
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
from kvlocal.launch import Command, Spawner
from kvlocal.nursery import Nursery
from kvlocal.processes import Child

async def main():
    folder = pathlib.Path(sys.argv[1])
    launcher = LAUNCHER
    await launcher.ready()
    child = Child(Command("n", "lives", (), folder / "log"), print, launcher)
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
