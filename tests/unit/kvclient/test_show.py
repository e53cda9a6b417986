"""What kvctl shows, as data."""

from kvclient.cli.show import MemberStatus, lags, leaderless, map_rows, record_json, status_json, text_or_base64
from kvclient.operations import Record
from kvproto.v1 import cluster_pb2


def member(pod: str, partition: int, role: int, commit: int, *, epoch: int = 1, serving: bool = True) -> MemberStatus:
    status = cluster_pb2.NodeStatus(
        pod=pod,
        partition=partition,
        role=role,  # type: ignore[arg-type]
        commit_index=commit,
        epoch=epoch,
        serving=serving,
    )
    return MemberStatus(cluster_pb2.Member(pod=pod, partition=partition), status)


LEADER, FOLLOWER = cluster_pb2.ROLE_LEADER, cluster_pb2.ROLE_FOLLOWER
TOPOLOGY = cluster_pb2.Topology(
    slots=[
        cluster_pb2.SlotRange(first=0, last=9, partition=0),
        cluster_pb2.SlotRange(first=10, last=16000, partition=1),
        cluster_pb2.SlotRange(first=16001, last=16383, partition=0),
    ],
    partitions=[cluster_pb2.Partition(partition=p) for p in range(3)],
)


def test_bytes_that_are_not_utf_8_are_base64_under_another_name() -> None:
    assert text_or_base64("value", "grün".encode()) == {"value": "grün"}
    assert text_or_base64("value", b"\xff\x00") == {"value_base64": "/wA="}
    assert record_json(Record(b"k", b"", 7), with_value=False) == {"key": "k", "version": 7}


def test_lag_is_counted_from_the_leader_of_the_newest_epoch() -> None:
    members = [
        member("a", 0, LEADER, 50, epoch=1),
        member("b", 0, LEADER, 100, epoch=2),
        member("c", 0, FOLLOWER, 90, epoch=2),
        member("d", 1, FOLLOWER, 5),
    ]
    assert lags(members) == {"a": 50, "b": 0, "c": 10}


def test_a_partition_without_a_leader_that_serves_is_named() -> None:
    members = [member("a", 0, LEADER, 1), member("b", 1, LEADER, 1, serving=False), member("c", 2, FOLLOWER, 1)]
    assert leaderless(TOPOLOGY, members) == (1, 2)


def test_the_map_shows_all_ranges_of_a_partition_and_those_without_any() -> None:
    assert [row[1] for row in map_rows(TOPOLOGY).rows] == ["0-9 16001-16383", "10-16000", "none"]


def test_an_unreachable_member_is_told_with_its_reason() -> None:
    gone = MemberStatus(cluster_pb2.Member(pod="x", partition=2), None, "x:1: can't connect")
    told = status_json(TOPOLOGY, [gone])
    assert told["members"] == [{"pod": "x", "partition": 2, "reachable": False, "problem": "x:1: can't connect"}]
