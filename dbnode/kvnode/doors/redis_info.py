"""What INFO says of a node: the fields that Redis's clients and people look for, and a few of our own."""

from collections.abc import Mapping

from kvcoord.view import ClusterView
from kvnode.core.types import Role
from kvnode.shell.host import Host
from kvresp.connection import Door
from kvresp.session import REDIS_VERSION


def node_info(host: Host, door: Door, view: ClusterView, *, durable: bool) -> Mapping[str, Mapping[str, object]]:
    """INFO's sections, title to fields, as of this moment."""
    store, me = host.store, host.config.me
    return {
        "Server": {
            "redis_version": REDIS_VERSION,
            "redis_mode": "cluster",
            "server_name": "kvcluster",
            "run_id": me.run,
            "kvcluster_pod": me.replica.pod,
            "kvcluster_partition": host.config.partition,
        },
        "Clients": {"connected_clients": door.clients, "maxclients": door.max_clients},
        "Persistence": {"loading": 0, "aof_enabled": int(durable), "kvcluster_log_bytes": store.log_bytes},
        "Stats": {
            "total_connections_received": door.connected,
            "total_commands_processed": door.counts.total,
            "rejected_connections": door.refused,
        },
        "Replication": _replication(host, view),
        "Commandstats": door.counts.describe(),
        "Cluster": {"cluster_enabled": 1},
        "Keyspace": {"db0": f"keys={store.keys},expires=0,avg_ttl=0"} if store.keys else {},
    }


def _replication(host: Host, view: ClusterView) -> Mapping[str, object]:
    core = host.core
    fields: dict[str, object] = {"role": "slave"}
    leader = view.leader_of(host.config.partition)
    if core.role is Role.LEADER:
        fields = {"role": "master", "connected_slaves": max(0, len(core.describe_in_sync()) - 1)}
    elif leader is not None and leader.redis_address:
        fields["master_host"], _, fields["master_port"] = leader.redis_address.rpartition(":")
        fields["master_link_status"] = "up" if core.connected else "down"
    return fields | {"master_repl_offset": core.commit, "kvcluster_epoch": core.epoch}
