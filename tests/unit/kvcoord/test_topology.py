"""A view, as the API's Topology."""

from kvcommon.slotmap import SlotMap
from kvcoord.contract import ClusterIdentity, Versioned
from kvcoord.topology import topology_of
from kvcoord.view import ClusterView
from tests.unit.kvcoord.contract_suite import STATE, member


def test_nothing_known_is_an_empty_topology() -> None:
    topology = topology_of(ClusterView())
    assert not topology.cluster_id
    assert not topology.slots
    assert not topology.partitions


def test_a_view_becomes_slots_partitions_and_members() -> None:
    """With who is connected, and all addresses of a member under their own names."""
    pod = member().pod
    view = ClusterView(
        identity=ClusterIdentity("id", "c", 1, 3),
        slot_map=SlotMap.even(1),
        partitions={0: Versioned(STATE, 4)},
        members={pod: member()},
        connected=frozenset({pod}),
    )
    topology = topology_of(view)
    assert (topology.cluster_id, topology.cluster_name) == ("id", "c")
    assert [(s.first, s.last, s.partition) for s in topology.slots] == [(0, 16383, 0)]
    (partition,) = topology.partitions
    assert (partition.partition, partition.epoch) == (0, STATE.epoch)
    assert list(partition.in_sync) == [r.pod for r in STATE.in_sync]
    (found,) = topology.members
    assert found.connected
    for address in ("grpc_address", "replication_address", "http_address", "pipeline_address"):
        assert getattr(found, address) == getattr(member(), address)
