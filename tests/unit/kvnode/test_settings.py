"""A node's settings from flags and environment."""

import pytest

from kvcommon.errors import ConfigurationError
from kvcommon.settings import parse_settings
from kvnode.settings import NodeSettings

NEEDED = {
    "KV_POD": "c-p0-0",
    "KV_PARTITION": "0",
    "KV_CLUSTER_ID": "1234",
    "KV_COORDINATION": "sqlite:///tmp/c.db",
}


def test_what_is_needed_is_enough() -> None:
    """The rest has defaults that fit a pod."""
    settings = parse_settings(NodeSettings, [], NEEDED)
    assert (settings.grpc_port, settings.replication_port, settings.http_port) == (7400, 7401, 7480)
    assert (settings.data_dir, settings.durability) == ("/data", "fsync")
    assert settings.termination_log == "/dev/termination-log"


def test_flags_go_over_the_environment() -> None:
    """The nearer one wins."""
    assert parse_settings(NodeSettings, ["--pod", "c-p0-1"], NEEDED).pod == "c-p0-1"


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--pod", ""),
        ("--partition", "1024"),
        ("--partition", "-1"),
        ("--partition", "zero"),
        ("--cluster-id", ""),
        ("--grpc-port", "65536"),
        ("--durability", "maybe"),
        ("--shutdown-timeout", "0"),
        ("--compaction-garbage", "0"),
        ("--compaction-rate", "-1"),
        ("--color", "blue"),
    ],
)
def test_a_bad_value_is_named(flag: str, value: str) -> None:
    """The error says which flag."""
    with pytest.raises(ConfigurationError, match=flag):
        parse_settings(NodeSettings, [flag, value], NEEDED)


@pytest.mark.parametrize("missing", list(NEEDED))
def test_a_missing_value_is_named(missing: str) -> None:
    """By flag and variable."""
    environment = {k: v for k, v in NEEDED.items() if k != missing}
    with pytest.raises(ConfigurationError, match=missing):
        parse_settings(NodeSettings, [], environment)


def test_how_the_log_is_kept_reaches_the_store() -> None:
    """Seconds become the store's milliseconds."""
    flags = ["--tombstone-retention", "90", "--compaction-rate", "1000", "--compaction", "false"]
    options = parse_settings(NodeSettings, flags, NEEDED).store_options
    assert (options.tombstone_ms, options.compaction_bytes_per_second, options.compaction) == (90_000, 1000, False)
