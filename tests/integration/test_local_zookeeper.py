"""`kvlocal run --zookeeper`: the same cluster with its coordination in a real ZooKeeper."""

from pathlib import Path

from kvcoord.open import open_coordination
from kvlocal.folder import Folder
from tests.integration.test_local_run import manifest, run
from tests.support.zookeeper import Ensemble, zookeeper

__all__ = ["manifest", "zookeeper"]


async def test_coordination_is_in_zookeeper_and_found_again(manifest: Path, zookeeper: Ensemble) -> None:
    """The demonstration's failover goes through it; nothing is left to SQLite; a second run leads on."""
    folder = manifest.parent / "data"
    for begins in ("1 partition born", "its data found again"):
        code, out, error = await run(manifest, "--exit-after-demo", "--zookeeper", zookeeper.hosts)
        assert (code, error) == (0, ""), out + error
        assert begins in out

    assert not (folder / "coordination.db").exists()
    remembered = Folder(folder).recall()
    assert remembered is not None
    coordination = open_coordination(Folder(folder).coordination_url(remembered))
    await coordination.start()
    state = await coordination.read_partition(0)
    await coordination.close()
    assert state is not None
    assert state.value.epoch >= 3  # each run's demonstration kills a leader


async def test_a_zookeeper_that_does_not_answer_is_told_and_not_remembered(manifest: Path) -> None:
    """In one sentence; the right one can be given next."""
    code, out, error = await run(manifest, "--no-demo", "--zookeeper", "127.0.0.1:1")

    assert (code, error.count("\n")) == (1, 1), out + error
    assert "no answer from ZooKeeper at 127.0.0.1:1" in error
    assert not (manifest.parent / "data" / "cluster.json").exists()
