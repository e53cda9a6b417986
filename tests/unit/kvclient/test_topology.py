"""Merging what several servers say, some of them behind."""

import pytest

from kvclient.topology import Endpoint, View
from kvcommon.errors import KVClusterError
from kvproto.v1 import cluster_pb2


def said(
    *, epoch: int = 1, leader: str = "a", run: str = "r1", map_version: int = 1, cluster_id: str = "c", **members: str
) -> cluster_pb2.Topology:
    """A topology of one partition; members as pod="run@address"."""
    return cluster_pb2.Topology(
        cluster_id=cluster_id,
        map_version=map_version,
        slots=[cluster_pb2.SlotRange(first=0, last=16383, partition=0)],
        partitions=[cluster_pb2.Partition(partition=0, epoch=epoch, leader=leader, leader_run=run)],
        members=[
            cluster_pb2.Member(pod=pod, run=at.split("@")[0], grpc_address=at.split("@")[1], connected=True)
            for pod, at in members.items()
        ],
    )


def test_the_leader_is_the_run_that_holds_the_epoch() -> None:
    view = View().merged(said(a="r1@h:1", b="r1@h:2"))
    assert view.leader(0) == Endpoint("a", "r1", "h:1")
    assert view.leader(1) is None


def test_a_server_that_is_behind_changes_neither_leader_nor_map() -> None:
    new = View().merged(said(epoch=5, leader="b", map_version=3, a="r1@h:1", b="r1@h:2"))
    view = new.merged(said(epoch=4, leader="a", map_version=2, a="r1@h:1", b="r1@h:2"))
    assert view.leader(0) == Endpoint("b", "r1", "h:2")
    assert view.map_version == 3


def test_a_member_that_vanished_keeps_its_last_address() -> None:
    view = View().merged(said(a="r1@h:1", b="r1@h:2")).merged(said(b="r1@h:2"))
    assert view.leader(0) == Endpoint("a", "r1", "h:1")
    assert [e.pod for e in view.replicas(0)] == ["b"]
    assert view.addresses() == ("h:2", "h:1")


def test_a_pod_that_came_back_elsewhere_is_found_there_even_by_one_that_only_heard_of_the_old_run() -> None:
    view = View().merged(said(a="r1@h:1")).merged(said(epoch=2, run="r2", a="r2@h:9"))
    assert view.leader(0) == Endpoint("a", "r2", "h:9")
    behind = view.merged(said(a="r1@h:1"))
    assert behind.leader(0) == Endpoint("a", "r2", "h:9")


def test_a_leading_run_never_heard_of_is_sought_at_its_pods_last_address() -> None:
    view = View().merged(said(run="r7", a="r1@h:1"))
    assert view.leader(0) == Endpoint("a", "r1", "h:1")


def test_another_cluster_at_the_same_address_is_refused() -> None:
    view = View().merged(said(a="r1@h:1"))
    with pytest.raises(KVClusterError, match="a server of cluster other"):
        view.merged(said(cluster_id="other", epoch=9, a="r1@h:1"))
    assert view.merged(said(cluster_id="", epoch=9, a="r1@h:1")).cluster_id == "c"


def test_a_damaged_map_is_refused() -> None:
    broken = said(map_version=2, a="r1@h:1")
    broken.slots[0].last = 100
    with pytest.raises(KVClusterError, match="covers 101 of 16384"):
        View().merged(broken)


def test_the_same_words_again_are_no_change() -> None:
    view = View().merged(said(a="r1@h:1"))
    assert view.merged(said(a="r1@h:1")) == view
