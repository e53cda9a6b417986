"""Coordination values as JSON text, the same in ZooKeeper, SQLite and memory.

Every value is one JSON object with `format` first. The rule for changes:

- A field may be added within a format only if it has a default and if it does no harm when an older process, that does not
  know it, writes the value back without it. Readers ignore fields they do not know.
- Anything else makes the format's number grow. A reader refuses a newer number by name: it would act on half a truth.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from kvcommon.errors import KVClusterError
from kvcommon.slotmap import SlotMap
from kvcoord.contract import ClusterIdentity, Death, MemberInfo, PartitionState, ReplicaId, RunId

FORMAT: Final = 1


class DamagedValueError(KVClusterError):
    """A coordination value that can't be read: not what any version of KVCluster writes."""


class NewerFormatError(KVClusterError):
    """A coordination value written by a newer KVCluster than this one."""


def encode_identity(identity: ClusterIdentity) -> bytes:
    """The identity as JSON."""
    return _dump(
        cluster_id=identity.cluster_id,
        name=identity.name,
        partitions=identity.partitions,
        replicas=identity.replicas,
        generation=identity.generation,
    )


def decode_identity(data: bytes) -> ClusterIdentity:
    """Raise DamagedValueError or NewerFormatError if it can't be read; so do all `decode_*`."""
    r = _Reader("cluster identity", data)
    return ClusterIdentity(
        r.text("cluster_id"), r.text("name"), r.number("partitions"), r.number("replicas"), r.number("generation", 1)
    )


def encode_map(slot_map: SlotMap) -> bytes:
    """The map as JSON: ranges are [first, last, partition]."""
    return _dump(version=slot_map.version, ranges=[[r.first, r.last, r.partition] for r in slot_map.ranges])


def decode_map(data: bytes) -> SlotMap:
    """The map; it covers every slot once."""
    r = _Reader("slot map", data)
    rows: list[tuple[int, int, int]] = []
    for row in r.items("ranges"):
        match row:
            case [int(first), int(last), int(partition)]:
                rows.append((first, last, partition))
            case _:
                raise r.damaged(f"range {row!r} is not [first, last, partition]")
    try:
        return SlotMap.of_ranges(r.number("version"), rows)
    except KVClusterError as error:
        raise r.damaged(str(error)) from error


def encode_partition(state: PartitionState) -> bytes:
    """The partition state as JSON."""
    return _dump(
        epoch=state.epoch,
        leader=None if state.leader is None else {**_replica(state.leader.replica), "run": state.leader.run},
        in_sync=[_replica(replica) for replica in state.in_sync],
        replicas=list(state.replicas),
        min_in_sync=state.min_in_sync,
        serial=state.serial,
        generation=state.generation,
    )


def decode_partition(data: bytes) -> PartitionState:
    """The partition state."""
    r = _Reader("partition state", data)
    leader = r.optional_object("leader")
    return PartitionState(
        epoch=r.number("epoch"),
        leader=None if leader is None else RunId(leader.replica(), leader.text("run")),
        in_sync=tuple(r.object_of(item, "in_sync").replica() for item in r.items("in_sync")),
        replicas=r.texts("replicas"),
        min_in_sync=r.number("min_in_sync"),
        serial=r.number("serial"),
        generation=r.number("generation"),
    )


def encode_member(member: MemberInfo) -> bytes:
    """The member as JSON."""
    return _dump(
        pod=member.pod,
        partition=member.partition,
        replica=_replica(member.replica),
        run=member.run,
        grpc_address=member.grpc_address,
        replication_address=member.replication_address,
        http_address=member.http_address,
        pipeline_address=member.pipeline_address,
        redis_address=member.redis_address,
        dns_name=member.dns_name,
        boot_id=member.boot_id,
        container_id=member.container_id,
        empty=member.empty,
        **({"trouble": member.trouble} if member.trouble else {}),
    )


def decode_member(data: bytes) -> MemberInfo:
    """The member."""
    r = _Reader("member", data)
    return MemberInfo(
        pod=r.text("pod"),
        partition=r.number("partition"),
        replica=r.object("replica").replica(),
        run=r.text("run"),
        grpc_address=r.text("grpc_address"),
        replication_address=r.text("replication_address"),
        http_address=r.text("http_address"),
        pipeline_address=r.text("pipeline_address", ""),
        redis_address=r.text("redis_address", ""),
        dns_name=r.text("dns_name", ""),
        boot_id=r.text("boot_id", ""),
        container_id=r.text("container_id", ""),
        empty=r.flag("empty", default=False),
        trouble=r.text("trouble", ""),
    )


def encode_deaths(deaths: Mapping[str, Death]) -> bytes:
    """All words of death as one JSON object, by pod."""
    return _dump(
        deaths=[
            {"pod": d.pod, "run": d.run, "container_id": d.container_id, "epoch": d.epoch}
            for _, d in sorted(deaths.items())
        ]
    )


def decode_deaths(data: bytes) -> dict[str, Death]:
    """Words of death by pod."""
    r = _Reader("words of death", data)
    entries = (r.object_of(item, "deaths") for item in r.items("deaths"))
    found = (Death(e.text("pod"), e.text("run"), e.text("container_id"), e.number("epoch")) for e in entries)
    return {death.pod: death for death in found}


def encode_run(run: str) -> bytes:
    """Which run of a pod registered last, as JSON."""
    return _dump(run=run)


def decode_run(data: bytes) -> str:
    """The run."""
    return _Reader("pod's run", data).text("run")


def _replica(replica: ReplicaId) -> dict[str, str]:
    return {"pod": replica.pod, "incarnation": replica.incarnation}


def _dump(**fields: object) -> bytes:
    return json.dumps({"format": FORMAT, **fields}, separators=(",", ":")).encode()


class _Reader:
    """Typed access to the fields of one JSON object; anything unexpected is a DamagedValueError that names it."""

    def __init__(self, kind: str, data: bytes | Mapping[str, Any]) -> None:
        self.kind = kind
        self.fields = self._parse(data) if isinstance(data, bytes) else data

    def _parse(self, data: bytes) -> Mapping[str, Any]:
        try:
            fields = json.loads(data)
        except ValueError as error:
            raise self.damaged(f"{error}, in {data[:80]!r}") from error
        if not isinstance(fields, dict):
            raise self.damaged(f"not an object: {data[:80]!r}")
        number = fields.get("format")
        if type(number) is not int or number < 1:
            raise self.damaged(f"format is {number!r}")
        if number > FORMAT:
            raise NewerFormatError(
                f"the {self.kind} has format {number} and this program reads up to {FORMAT}: "
                "run the version of KVCluster that wrote it, or a newer one"
            )
        return fields

    def damaged(self, what: str) -> DamagedValueError:
        return DamagedValueError(
            f"the {self.kind} in the coordination data is damaged: {what}; restore it or let a person look at it"
        )

    def _field(self, name: str, kind: type, default: object) -> Any:
        value = self.fields.get(name, default)
        if type(value) is not kind:
            raise self.damaged(f"{name} is {value!r}, not {kind.__name__}")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        value: str = self._field(name, str, default)
        return value

    def number(self, name: str, default: int | None = None) -> int:
        value: int = self._field(name, int, default)
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        value: bool = self._field(name, bool, default)
        return value

    def items(self, name: str) -> list[Any]:
        value: list[Any] = self._field(name, list, None)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        items = self.items(name)
        if not all(isinstance(item, str) for item in items):
            raise self.damaged(f"{name} is {items!r}, not a list of texts")
        return tuple(items)

    def object_of(self, value: object, name: str) -> "_Reader":
        if not isinstance(value, dict):
            raise self.damaged(f"{name} is {value!r}, not an object")
        return _Reader(self.kind, value)

    def object(self, name: str) -> "_Reader":
        return self.object_of(self.fields.get(name), name)

    def optional_object(self, name: str) -> "_Reader | None":
        if name not in self.fields:
            raise self.damaged(f"{name} is missing")
        value = self.fields[name]
        return None if value is None else self.object_of(value, name)

    def replica(self) -> ReplicaId:
        return ReplicaId(self.text("pod"), self.text("incarnation"))
