"""Manifests: what is taken from a KVCluster, and what is said of a bad one."""

from pathlib import Path

import pytest

from kvcommon.errors import ConfigurationError
from kvlocal.manifest import load_shape
from kvlocal.shape import Shape

GOOD = """
apiVersion: kvcluster.dev/v1alpha1
kind: KVCluster
metadata:
  name: c
spec:
  partitions: 2
  replicas: 5
  durability: memory
"""


def test_a_kvcluster_gives_its_measures(tmp_path: Path) -> None:
    """MinInSync takes its default."""
    (tmp_path / "m.yaml").write_text(GOOD)

    assert load_shape(tmp_path / "m.yaml") == Shape("c", partitions=2, replicas=5, min_in_sync=3, durability="memory")


def test_other_objects_in_the_file_are_left_alone(tmp_path: Path) -> None:
    """As kubectl would apply them all."""
    (tmp_path / "m.yaml").write_text("kind: Namespace\n---\n" + GOOD)

    assert load_shape(tmp_path / "m.yaml").name == "c"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("kind: KVCluster", "kind: Pod", "0 objects of kind KVCluster"),
        ("v1alpha1", "v9", "apiVersion is 'kvcluster.dev/v9'"),
        ("name: c", "name: C_1", "metadata.name is 'C_1'"),
        ("metadata:", "meta:", "metadata.name is None"),
        ("replicas: 5", "replicas: five", "spec.replicas is 'five'"),
        ("replicas: 5", "replica: 5", "spec.replica: unknown field"),
        ("durability: memory", "minInSync: 6", "minInSync is 6 with 5 replicas"),
        ("spec:", "spec: [", "is not YAML"),
    ],
)
def test_a_bad_manifest_is_one_clear_sentence(tmp_path: Path, old: str, new: str, said: str) -> None:
    """With the file's name, the field and the value."""
    (tmp_path / "m.yaml").write_text(GOOD.replace(old, new))

    with pytest.raises(ConfigurationError) as raised:
        load_shape(tmp_path / "m.yaml")

    assert str(tmp_path / "m.yaml") in str(raised.value)
    assert said in str(raised.value)


def test_a_missing_manifest_is_said(tmp_path: Path) -> None:
    """Not a traceback."""
    with pytest.raises(ConfigurationError, match="can't be read: No such file"):
        load_shape(tmp_path / "none.yaml")
