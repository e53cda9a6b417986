"""cluster.json as released: this file never changes; a new format adds another."""

from pathlib import Path

from kvlocal.folder import Folder, Remembered
from tests.unit.kvlocal.test_folder import ID, SHAPE

GOLDEN = Path(__file__).parent / "golden" / "cluster.json"
REMEMBERED = Remembered(str(ID), SHAPE, {"c-p0-0/grpc": 21000}, "zk:2181")


def test_a_cluster_is_remembered_as_released(tmp_path: Path) -> None:
    """To the byte."""
    with Folder(tmp_path / "c") as folder:
        folder.remember(REMEMBERED)
    assert (tmp_path / "c" / "cluster.json").read_bytes() == GOLDEN.read_bytes()


def test_a_cluster_that_a_release_remembered_is_recalled(tmp_path: Path) -> None:
    """With its id, shape and ports."""
    (tmp_path / "cluster.json").write_bytes(GOLDEN.read_bytes())
    with Folder(tmp_path) as folder:
        assert folder.recall() == REMEMBERED
