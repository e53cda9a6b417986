"""The cluster as a process sees it, as the API's Topology: the one place where coordination meets the protos."""

from kvcoord.contract import MemberInfo, PartitionState
from kvcoord.view import ClusterView
from kvproto.v1 import cluster_pb2


def topology_of(view: ClusterView) -> cluster_pb2.Topology:
    """The API's picture of a view."""
    topology = cluster_pb2.Topology(
        partitions=[_partition(number, state.value) for number, state in sorted(view.partitions.items())],
        members=[_member(member, connected=pod in view.connected) for pod, member in sorted(view.members.items())],
    )
    if view.identity is not None:
        topology.cluster_id, topology.cluster_name = view.identity.cluster_id, view.identity.name
    if view.slot_map is not None:
        topology.map_version = view.slot_map.version
        for r in view.slot_map.ranges:
            topology.slots.add(first=r.first, last=r.last, partition=r.partition)
    return topology


def _partition(number: int, state: PartitionState) -> cluster_pb2.Partition:
    return cluster_pb2.Partition(
        partition=number,
        epoch=state.epoch,
        leader=state.leader.replica.pod if state.leader else "",
        leader_run=state.leader.run if state.leader else "",
        in_sync=[replica.pod for replica in state.in_sync],
        replicas=state.replicas,
    )


def _member(member: MemberInfo, *, connected: bool) -> cluster_pb2.Member:
    return cluster_pb2.Member(
        pod=member.pod,
        partition=member.partition,
        incarnation=member.replica.incarnation,
        run=member.run,
        grpc_address=member.grpc_address,
        replication_address=member.replication_address,
        dns_name=member.dns_name,
        connected=connected,
        http_address=member.http_address,
        pipeline_address=member.pipeline_address,
    )
