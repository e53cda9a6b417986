"""The SQLite files as released, as SQL; their cells hold what `golden/values.txt` has. A line here never changes."""

import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kvcommon.clock import Clock
from kvcoord.cells import Cell, partition_cell
from kvcoord.codec import encode_member, encode_partition
from kvcoord.contract import Won
from kvcoord.sqlite import Session, SqliteFile
from tests.unit.kvcoord.contract_suite import STATE, led_by, member

GOLDEN = Path(__file__).parent / "golden"
BIRTH = 1 << 60
CELL = partition_cell(0)
FILES = {"coordination.db": "sqlite.sql", "coordination.db-sessions": "sqlite-sessions.sql"}


class Noon(Clock):
    """Half an hour after the boot."""

    def now(self) -> float:
        return 1800.0

    def wall_ms(self) -> int:
        return 0


@pytest.fixture
def known_birth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=BIRTH << 65))


def opened(directory: Path, name: str = "session1") -> SqliteFile:
    return SqliteFile(directory / "coordination.db", Session(name, "boot1", 6.0), Noon())


def dump(path: Path) -> str:
    with closing(sqlite3.connect(path)) as db:
        return "\n".join(db.iterdump()) + "\n"


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A directory with the files that a release left."""
    for name, golden in FILES.items():
        with closing(sqlite3.connect(tmp_path / name)) as db:
            db.executescript((GOLDEN / golden).read_text())
    return tmp_path


@pytest.fixture
def file(released: Path) -> Iterator[SqliteFile]:
    found = opened(released, "session2")
    yield found
    found.close()


@pytest.mark.usefixtures("known_birth")
def test_the_files_are_written_as_released(tmp_path: Path) -> None:
    """Tables, columns and what is in them."""
    file = opened(tmp_path)
    file.heartbeat()
    file.create(CELL, encode_partition(STATE))
    file.compare_and_set(CELL, 0, encode_partition(led_by("run1")))
    file.register(member(), first=True)
    for name, golden in FILES.items():
        assert dump(tmp_path / name) == (GOLDEN / golden).read_text()
    file.close()


def test_released_files_are_read(file: SqliteFile) -> None:
    """A cell with its version and birth, a registration."""
    assert file.read(CELL) == Cell(encode_partition(led_by("run1")), 1, BIRTH)
    assert file.members() == {"c-p0-0": encode_member(member())}


def test_released_files_are_written_on(file: SqliteFile) -> None:
    """The version goes on, which run of a pod was the last is known, and a session that has ended is buried."""
    assert file.compare_and_set(CELL, 1, encode_partition(STATE)) == Won(2)
    assert not file.register(member(run="run0"), first=False)
    assert file.register(member(run="run1"), first=False)
    assert file.is_registered(member(run="run1"))
    file.heartbeat()
    assert not file.bury()
