"""The data folder: found again, locked, never mistaken."""

import uuid
from pathlib import Path

import pytest

from kvcommon.errors import ConfigurationError
from kvlocal.folder import Folder, Remembered, reconcile
from kvlocal.shape import Shape

SHAPE = Shape("c", partitions=3, replicas=3, min_in_sync=2)
ID = uuid.UUID(int=7)


def test_what_was_remembered_is_recalled(tmp_path: Path) -> None:
    """Through a new Folder, as in a second run."""
    what = Remembered(str(ID), SHAPE, {"c-p0-0/grpc": 21000}, "zk:2181")
    with Folder(tmp_path / "c") as folder:
        folder.remember(what)

    with Folder(tmp_path / "c") as folder:
        assert folder.recall() == what


def test_a_new_folder_remembers_nothing(tmp_path: Path) -> None:
    """A first run."""
    with Folder(tmp_path / "c") as folder:
        assert folder.recall() is None


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    """--data ~ does no harm."""
    (tmp_path / "letter.txt").write_text("dear")

    with pytest.raises(ConfigurationError, match="not empty"), Folder(tmp_path):
        pass

    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


def test_a_folder_left_by_a_start_that_failed_early_is_used(tmp_path: Path) -> None:
    """Its empty parts are no obstacle."""
    with Folder(tmp_path):
        pass
    with Folder(tmp_path) as folder:
        assert folder.recall() is None


def test_a_running_cluster_is_not_started_twice(tmp_path: Path) -> None:
    """The second kvlocal is told who has it."""
    with Folder(tmp_path / "c"), pytest.raises(ConfigurationError, match="running already"), Folder(tmp_path / "c"):
        pass


def test_damage_is_said(tmp_path: Path) -> None:
    """With the file's name."""
    with Folder(tmp_path / "c") as folder:
        (tmp_path / "c" / "cluster.json").write_text("{")
        with pytest.raises(ConfigurationError, match=r"cluster\.json is damaged"):
            folder.recall()


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """Rather than guessed at."""
    with Folder(tmp_path / "c") as folder:
        (tmp_path / "c" / "cluster.json").write_text('{"format": 2}')
        with pytest.raises(ConfigurationError, match="format 2"):
            folder.recall()


def test_a_first_run_gets_a_new_id(tmp_path: Path) -> None:
    """From the caller's randomness."""
    assert reconcile(tmp_path, None, SHAPE, "", ID) == Remembered(str(ID), SHAPE)


def test_the_same_spec_takes_the_cluster_up(tmp_path: Path) -> None:
    """With its id and ports."""
    stored = Remembered("old", SHAPE, {"c-p0-0/grpc": 21000})

    assert reconcile(tmp_path, stored, SHAPE, "", ID) == stored


def test_another_spec_is_refused_with_what_differs(tmp_path: Path) -> None:
    """All differences in one sentence."""
    stored = Remembered("old", SHAPE)
    asked = Shape("c", partitions=4, replicas=2, min_in_sync=2)

    with pytest.raises(ConfigurationError, match="partitions is 4, was 3; replicas is 2, was 3; coordination is zk:1"):
        reconcile(tmp_path, stored, asked, "zk:1", ID)
