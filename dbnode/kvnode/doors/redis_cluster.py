"""The cluster as a Redis Cluster's client wants it described: pure functions of a view."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kvcommon.slotmap import SlotRange
from kvcommon.slots import SLOTS
from kvcoord.contract import MemberInfo
from kvcoord.view import ClusterView
from kvresp.replies import Reply


def node_id(cluster_id: str, pod: str) -> str:
    """The 40 hexadecimal digits that stand for a pod of a cluster, in every life of it."""
    return hashlib.sha1(f"{cluster_id}/{pod}".encode(), usedforsecurity=False).hexdigest()


def split_address(address: str) -> tuple[str, int]:
    """Host and port of host:port."""
    host, _, port = address.rpartition(":")
    return host, int(port)


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """One member that speaks the Redis protocol."""

    id: str
    host: str
    port: int
    bus_port: int
    partition: int
    epoch: int
    leads: bool
    connected: bool


class ClusterPicture:
    """What CLUSTER's subcommands say, from a view of coordination; `cluster_id` and `pod` are this node's."""

    def __init__(self, view: ClusterView, cluster_id: str, pod: str) -> None:
        self._view, self._cluster_id = view, cluster_id
        self.me = node_id(cluster_id, pod)
        self.nodes = [self._node(m) for _, m in sorted(view.members.items()) if m.redis_address]
        self.ranges: Sequence[SlotRange] = view.slot_map.ranges if view.slot_map else ()

    def _node(self, member: MemberInfo) -> ClusterNode:
        state = self._view.partitions.get(member.partition)
        leader = self._view.leader_of(member.partition)
        host, port = split_address(member.redis_address)
        return ClusterNode(
            id=node_id(self._cluster_id, member.pod),
            host=host,
            port=port,
            bus_port=split_address(member.replication_address)[1],
            partition=member.partition,
            epoch=state.value.epoch if state else 0,
            leads=leader is not None and leader.pod == member.pod,
            connected=member.pod in self._view.connected,
        )

    def _leader_first(self, partition: int) -> list[ClusterNode]:
        """A partition's nodes; empty if nobody leads it."""
        nodes = sorted((n for n in self.nodes if n.partition == partition), key=lambda n: not n.leads)
        if not nodes or not nodes[0].leads:
            return []
        return [n for n in nodes if n.leads or n.connected]

    def slots(self) -> Reply:
        """CLUSTER SLOTS: a range of slots, its leader, its followers. A partition without a leader is left out."""
        rows: list[Reply] = []
        for r in self.ranges:
            nodes = self._leader_first(r.partition)
            if nodes:
                rows.append([r.first, r.last, *([n.host, n.port, n.id, []] for n in nodes)])
        return rows

    def shards(self) -> Reply:
        """CLUSTER SHARDS: each partition's slots and nodes."""
        partitions = sorted({r.partition for r in self.ranges} | {n.partition for n in self.nodes})
        return [
            {
                "slots": [bound for r in self.ranges if r.partition == p for bound in (r.first, r.last)],
                "nodes": [_shard_node(n) for n in self.nodes if n.partition == p],
            }
            for p in partitions
        ]

    def text(self) -> str:
        """CLUSTER NODES: a line for each node."""
        return "".join(line + "\n" for line in map(self._line, self.nodes))

    def _line(self, node: ClusterNode) -> str:
        leaders = (n.id for n in self.nodes if n.partition == node.partition and n.leads)
        flags = ("myself," if node.id == self.me else "") + ("master" if node.leads else "slave")
        fields = [
            node.id,
            f"{node.host}:{node.port}@{node.bus_port}",
            flags,
            "-" if node.leads else next(leaders, "-"),
            "0",
            "0",
            str(node.epoch),
            "connected" if node.connected or node.id == self.me else "disconnected",
        ]
        if node.leads:
            fields += [_range(r) for r in self.ranges if r.partition == node.partition]
        return " ".join(fields)

    def info(self) -> dict[str, object]:
        """CLUSTER INFO's fields."""
        partitions = {r.partition for r in self.ranges}
        served = sum(r.last - r.first + 1 for r in self.ranges if self._leader_first(r.partition))
        epochs = [v.value.epoch for v in self._view.partitions.values()]
        mine = next((n.epoch for n in self.nodes if n.id == self.me), 0)
        return {
            "cluster_state": "ok" if served == SLOTS else "fail",
            "cluster_slots_assigned": sum(r.last - r.first + 1 for r in self.ranges),
            "cluster_slots_ok": served,
            "cluster_slots_pfail": 0,
            "cluster_slots_fail": SLOTS - served,
            "cluster_known_nodes": len(self.nodes),
            "cluster_size": len(partitions),
            "cluster_current_epoch": max(epochs, default=0),
            "cluster_my_epoch": mine,
            "cluster_stats_messages_sent": 0,
            "cluster_stats_messages_received": 0,
        }


def lines(fields: Iterable[tuple[str, object]]) -> str:
    """Fields as `name:value` lines."""
    return "".join(f"{name}:{value}\r\n" for name, value in fields)


def _shard_node(node: ClusterNode) -> Reply:
    return {
        "id": node.id,
        "port": node.port,
        "ip": node.host,
        "endpoint": node.host,
        "role": "master" if node.leads else "replica",
        "replication-offset": 0,
        "health": "online" if node.connected else "failed",
    }


def _range(r: SlotRange) -> str:
    return str(r.first) if r.first == r.last else f"{r.first}-{r.last}"
