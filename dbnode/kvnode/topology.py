"""The cluster as this process sees it, as the API's Topology."""

from kvcoord.contract import MemberInfo
from kvcoord.view import ClusterView
from kvproto.v1 import cluster_pb2


def topology_of(view: ClusterView) -> cluster_pb2.Topology:
    """The API's picture of a view."""
    topology = cluster_pb2.Topology()
    if view.identity is not None:
        topology.cluster_id, topology.cluster_name = view.identity.cluster_id, view.identity.name
    if view.slot_map is not None:
        topology.map_version = view.slot_map.version
        for r in view.slot_map.ranges:
            topology.slots.add(first=r.first, last=r.last, partition=r.partition)
    for number, versioned in sorted(view.partitions.items()):
        state = versioned.value
        topology.partitions.add(
            partition=number,
            epoch=state.epoch,
            leader=state.leader.replica.pod if state.leader else "",
            leader_run=state.leader.run if state.leader else "",
            in_sync=[r.pod for r in state.in_sync],
            replicas=state.replicas,
        )
    topology.members.extend(_member(m, connected=pod in view.connected) for pod, m in sorted(view.members.items()))
    return topology


def _member(member: MemberInfo, *, connected: bool) -> cluster_pb2.Member:
    return cluster_pb2.Member(
        pod=member.pod,
        partition=member.partition,
        incarnation=member.replica.incarnation,
        run=member.run,
        grpc_address=member.grpc_address,
        replication_address=member.replication_address,
        http_address=member.http_address,
        pipeline_address=member.pipeline_address,
        dns_name=member.dns_name,
        connected=connected,
    )
