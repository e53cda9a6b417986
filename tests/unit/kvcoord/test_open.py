import pytest

from kvcommon.errors import ConfigurationError
from kvcoord.open import open_coordination
from kvcoord.sqlite import SqliteCoordination


def test_sqlite_by_absolute_path() -> None:
    coordination = open_coordination("sqlite:///var/lib/kv/coordination.db")
    assert isinstance(coordination, SqliteCoordination)
    assert str(coordination._path) == "/var/lib/kv/coordination.db"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "coordination.db",
        "sqlite://relative/path.db",
        "sqlite:///",
        "sqlite:///directory/",
        "etcd://host:2379/kv",
        "zookeeper://host:2181",
        "zookeeper://host:2181/",
        "zookeeper://host:2181/kv//c",
        "zookeeper://host:2181/kv/c/",
        "zookeeper:///kvcluster/c",
        "zookeeper://host:port/kvcluster/c",
        "zookeeper://host:99999/kvcluster/c",
        "zookeeper://a:1,,b:2/kvcluster/c",
        "zookeeper://user@host/kvcluster/c",
        "zookeeper://host/kvcluster/c?timeout=3",
    ],
)
def test_any_other_url_is_refused_with_examples(url: str) -> None:
    with pytest.raises(ConfigurationError, match="write zookeeper://zk-0:2181,") as raised:
        open_coordination(url)
    assert repr(url) in str(raised.value)
