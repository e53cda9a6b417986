"""What a node says of itself."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from kvnode.core.types import Role
from kvnode.shell.host import Host
from kvnode.status import Reporter
from kvproto.v1 import cluster_pb2
from kvstore.maintenance import Progress
from kvstore.store import Store
from tests.unit.kvnode.fake_host import FakeHost


@pytest.fixture
def host(tmp_path: Path) -> Iterator[FakeHost]:
    host = FakeHost(tmp_path / "data")
    yield host
    host.store.close()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def reporter(host: FakeHost, registry: CollectorRegistry) -> Reporter:
    return Reporter(cast("Host", host), registry)


def test_a_leader_is_ready_once_its_epoch_is_open(host: FakeHost, reporter: Reporter) -> None:
    """Before that it answers nothing."""
    host.core.accepting = False
    assert reporter.not_ready() == "the leader's epoch is not open yet"
    host.core.accepting = True
    assert reporter.not_ready() is None


def test_a_leader_without_a_lease_is_not_serving(host: FakeHost, reporter: Reporter) -> None:
    """It can answer no read."""
    assert reporter.status().serving
    host.core.lease_until = host.clock.time
    assert not reporter.status().serving


def test_a_follower_is_ready_while_its_leader_has_welcomed_it(host: FakeHost, reporter: Reporter) -> None:
    """In sync or catching up."""
    host.core.role = Role.FOLLOWER
    assert reporter.not_ready() == "not connected to the partition's leader"
    host.core.connected = True
    assert reporter.not_ready() is None
    host.core.in_sync = False
    assert not reporter.status().serving


def test_a_failure_and_an_unknown_state_are_told(host: FakeHost, reporter: Reporter) -> None:
    """With the reason."""
    host.core.state = None
    assert reporter.not_ready() == "the partition's state is not known yet"
    host.core.role, host.core.failure = Role.FAILED, "disk broken"
    assert (reporter.not_ready() or "").startswith("failed: disk broken; ")
    assert "disk broken" in reporter.status().message


def test_a_disk_that_is_an_older_copy_is_told_with_what_happens_next(host: FakeHost, reporter: Reporter) -> None:
    """The last in-sync replica stays down until a person decides."""
    host.core.role, host.core.strange = Role.FOLLOWER, "its disk is an older copy"
    told = reporter.not_ready() or ""
    assert told.startswith("its disk is an older copy; it alone was in sync")
    assert "kvrecover --take" in told


def test_status_names_the_run_and_its_positions(host: FakeHost, reporter: Reporter) -> None:
    """All that a person asks for first."""
    status = reporter.status()
    assert (status.pod, status.incarnation, status.run) == ("c-p0-0", "1", "r1")
    assert (status.role, status.epoch) == (cluster_pb2.ROLE_LEADER, 1)
    assert reporter.status_json()["end_index"] == "0"


def test_metrics_are_those_of_the_moment(host: FakeHost, reporter: Reporter, registry: CollectorRegistry) -> None:
    """Read when asked."""
    labels = '{partition="0",pod="c-p0-0"}'
    assert f"kvcluster_node_leader{labels} 1.0" in generate_latest(registry).decode()
    host.core.role = Role.FOLLOWER
    assert f"kvcluster_node_leader{labels} 0.0" in generate_latest(registry).decode()


def test_metrics_show_how_far_a_compaction_is(
    host: FakeHost, registry: CollectorRegistry, reporter: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is compacted, how much of it was read, what waits; and what the ones before came to."""
    assert reporter.status()  # it is what the registry collects
    progress = Progress(compactions=2, reclaimed_bytes=700, waiting=3, source_bytes=900, read_bytes=400)
    monkeypatch.setattr(Store, "progress", progress)
    told = generate_latest(registry).decode()
    for name, value in {
        "compactions": 2.0,
        "compaction_reclaimed_bytes": 700.0,
        "compaction_waiting_segments": 3.0,
        "compaction_source_bytes": 900.0,
        "compaction_read_bytes": 400.0,
    }.items():
        assert f'kvcluster_node_{name}{{partition="0",pod="c-p0-0"}} {value}' in told
    assert host.store.progress is progress
