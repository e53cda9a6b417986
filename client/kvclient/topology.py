"""What the client knows of the cluster: pure, made by merging what any number of servers say."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple

from kvcommon.errors import KVClusterError
from kvcommon.slotmap import SlotMap, SlotRange
from kvproto.v1 import cluster_pb2

_RUNS_PER_POD = 4


class Endpoint(NamedTuple):
    """One run of one process, and where it is. A pod that comes back is another run, often at another address."""

    pod: str
    run: str
    address: str  # host:port of gRPC
    pipeline: str = ""  # host:port of batches as frames; empty: none


@dataclass(frozen=True, slots=True)
class PartitionView:
    """Who leads a partition, by pod name and run."""

    epoch: int
    leader: str
    leader_run: str
    in_sync: tuple[str, ...]
    replicas: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MemberView:
    """Where a pod is, or was last."""

    endpoint: Endpoint
    partition: int
    connected: bool


@dataclass(frozen=True)
class View:
    """The newest of everything heard.

    Servers may be behind one another: the map with the higher version wins, and the partition with the higher epoch.
    A member that vanishes keeps its last address, because its coordination session may end before it does.
    """

    cluster_id: str = ""
    cluster_name: str = ""
    slot_map: SlotMap | None = None
    partitions: Mapping[int, PartitionView] = field(default_factory=lambda: MappingProxyType({}))
    members: Mapping[str, MemberView] = field(default_factory=lambda: MappingProxyType({}))
    runs: Mapping[str, tuple[Endpoint, ...]] = field(default_factory=lambda: MappingProxyType({}))  # newest first

    @property
    def map_version(self) -> int:
        """0 while no map is known."""
        return self.slot_map.version if self.slot_map else 0

    def merged(self, topology: cluster_pb2.Topology) -> "View":
        """This view and what a server says; raises KVClusterError when that is of another cluster, or damaged."""
        if self.cluster_id and topology.cluster_id and topology.cluster_id != self.cluster_id:
            raise KVClusterError(f"a server of cluster {topology.cluster_id}; this client's is {self.cluster_id}")
        members = _members(self.members, topology)
        return replace(
            self,
            cluster_id=topology.cluster_id or self.cluster_id,  # a server may not have learnt it yet
            cluster_name=topology.cluster_name or self.cluster_name,
            slot_map=_slot_map(self.slot_map, topology),
            partitions=_partitions(self.partitions, topology),
            members=members,
            runs=_runs(self.runs, members),
        )

    def leader(self, partition: int) -> Endpoint | None:
        """The run that leads a partition; at the pod's last known address when that run has not been heard of."""
        state = self.partitions.get(partition)
        if state is None or not state.leader:
            return None
        runs = self.runs.get(state.leader, ())
        named = (endpoint for endpoint in runs if endpoint.run == state.leader_run)
        return next(named, runs[0] if runs else None)

    def replicas(self, partition: int) -> tuple[Endpoint, ...]:
        """Members of a partition that are there, in the order of their names."""
        return tuple(
            member.endpoint
            for _, member in sorted(self.members.items())
            if member.partition == partition and member.connected
        )

    def at(self, partition: int, address: str) -> Endpoint | None:
        """The member of a partition at an address."""
        return next((e for e in self.replicas(partition) if e.address == address), None)

    def addresses(self) -> tuple[str, ...]:
        """Of all members, those that are there first."""
        ordered = sorted(self.members.values(), key=lambda m: (not m.connected, m.endpoint))
        return tuple(member.endpoint.address for member in ordered)


def _slot_map(known: SlotMap | None, topology: cluster_pb2.Topology) -> SlotMap | None:
    if not topology.slots or (known is not None and topology.map_version <= known.version):
        return known
    return SlotMap(topology.map_version, tuple(SlotRange(s.first, s.last, s.partition) for s in topology.slots))


def _partitions(known: Mapping[int, PartitionView], topology: cluster_pb2.Topology) -> Mapping[int, PartitionView]:
    merged = dict(known)
    for said in topology.partitions:
        before = merged.get(said.partition)
        if before is None or said.epoch >= before.epoch:
            merged[said.partition] = PartitionView(
                said.epoch, said.leader, said.leader_run, tuple(said.in_sync), tuple(said.replicas)
            )
    return MappingProxyType(merged)


def _members(known: Mapping[str, MemberView], topology: cluster_pb2.Topology) -> Mapping[str, MemberView]:
    merged = {pod: replace(member, connected=False) for pod, member in known.items()}
    for said in topology.members:
        if said.grpc_address:
            endpoint = Endpoint(said.pod, said.run, said.grpc_address, said.pipeline_address)
            merged[said.pod] = MemberView(endpoint, said.partition, said.connected)
    return MappingProxyType(merged)


def _runs(
    known: Mapping[str, tuple[Endpoint, ...]], members: Mapping[str, MemberView]
) -> Mapping[str, tuple[Endpoint, ...]]:
    merged = dict(known)
    for pod, member in members.items():
        older = tuple(e for e in known.get(pod, ()) if e != member.endpoint)
        merged[pod] = (member.endpoint, *older)[:_RUNS_PER_POD]
    return MappingProxyType(merged)
