"""What kvctl prints: tables for people, JSON for programs. Pure but for `Output`, which writes."""

import base64
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rich.console import Console
from rich.table import Table

from kvclient.operations import Record
from kvproto.v1 import cluster_pb2


class Format(StrEnum):
    """For whom."""

    TABLE = "table"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """What one member said of itself, or why it said nothing."""

    member: cluster_pb2.Member
    status: cluster_pb2.NodeStatus | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Rows:
    """A table for people."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def text_or_base64(name: str, data: bytes) -> dict[str, str]:
    """`{name: text}`, or `{name_base64: ...}` when the bytes are not UTF-8."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def record_json(record: Record, *, with_value: bool) -> dict[str, object]:
    """A record as JSON; without its value in answers to writes."""
    value = text_or_base64("value", record.value) if with_value else {}
    return {**text_or_base64("key", record.key), **value, "version": record.version}


def slots_of(topology: cluster_pb2.Topology, partition: int) -> list[tuple[int, int]]:
    """The slot ranges of a partition."""
    return [(r.first, r.last) for r in topology.slots if r.partition == partition]


def map_json(topology: cluster_pb2.Topology) -> dict[str, object]:
    """The map as JSON."""
    return {
        "cluster_id": topology.cluster_id,
        "cluster_name": topology.cluster_name,
        "map_version": topology.map_version,
        "partitions": [
            {
                "partition": p.partition,
                "slots": [list(r) for r in slots_of(topology, p.partition)],
                "epoch": p.epoch,
                "leader": p.leader,
                "leader_run": p.leader_run,
                "in_sync": list(p.in_sync),
                "replicas": list(p.replicas),
            }
            for p in topology.partitions
        ],
    }


def map_rows(topology: cluster_pb2.Topology) -> Rows:
    """The map for people."""
    return Rows(
        ("PARTITION", "SLOTS", "EPOCH", "LEADER", "IN SYNC", "REPLICAS"),
        tuple(
            (
                str(p.partition),
                " ".join(f"{first}-{last}" for first, last in slots_of(topology, p.partition)) or "none",
                str(p.epoch),
                p.leader or "none yet",
                " ".join(p.in_sync),
                " ".join(p.replicas),
            )
            for p in topology.partitions
        ),
    )


def members_json(topology: cluster_pb2.Topology) -> list[dict[str, object]]:
    """The members as JSON."""
    return [
        {
            "pod": m.pod,
            "partition": m.partition,
            "connected": m.connected,
            "incarnation": m.incarnation,
            "run": m.run,
            "grpc_address": m.grpc_address,
            "replication_address": m.replication_address,
            "http_address": m.http_address,
            "dns_name": m.dns_name,
        }
        for m in topology.members
    ]


def members_rows(topology: cluster_pb2.Topology) -> Rows:
    """The members for people."""
    return Rows(
        ("POD", "PARTITION", "CONNECTED", "ADDRESS", "INCARNATION", "RUN"),
        tuple(
            (m.pod, str(m.partition), "yes" if m.connected else "no", m.grpc_address, m.incarnation, m.run)
            for m in topology.members
        ),
    )


def lags(members: Sequence[MemberStatus]) -> dict[str, int]:
    """How many log records each answering member's commit is behind that of its partition's leader."""
    leading = {
        one.status.partition: one.status.commit_index
        for one in sorted(members, key=lambda m: m.status.epoch if m.status else 0)
        if one.status is not None and one.status.role == cluster_pb2.ROLE_LEADER
    }
    return {
        one.member.pod: max(0, leading[one.status.partition] - one.status.commit_index)
        for one in members
        if one.status is not None and one.status.partition in leading
    }


def leaderless(topology: cluster_pb2.Topology, members: Sequence[MemberStatus]) -> tuple[int, ...]:
    """Partitions of which no member says that it leads and serves."""
    served = {
        one.status.partition
        for one in members
        if one.status is not None and one.status.role == cluster_pb2.ROLE_LEADER and one.status.serving
    }
    return tuple(p.partition for p in topology.partitions if p.partition not in served)


def role_name(role: int) -> str:
    """`leader`, `follower`, ..."""
    return cluster_pb2.Role.Name(role).removeprefix("ROLE_").lower().replace("unspecified", "starting")  # type: ignore[arg-type]  # any number


def status_json(topology: cluster_pb2.Topology, members: Sequence[MemberStatus]) -> dict[str, object]:
    """The members' own words as JSON."""
    behind = lags(members)
    return {
        "cluster_id": topology.cluster_id,
        "partitions_without_serving_leader": list(leaderless(topology, members)),
        "members": [_member_json(one, behind.get(one.member.pod)) for one in members],
    }


def _member_json(one: MemberStatus, lag: int | None) -> dict[str, object]:
    said: dict[str, object] = {"pod": one.member.pod, "partition": one.member.partition, "reachable": False}
    if one.status is None:
        return {**said, "problem": one.problem}
    s = one.status
    return {
        **said,
        "reachable": True,
        "role": role_name(s.role),
        "serving": s.serving,
        "in_sync": s.in_sync,
        "epoch": s.epoch,
        "end_index": s.end_index,
        "durable_index": s.durable_index,
        "commit_index": s.commit_index,
        "applied_index": s.applied_index,
        "lag": lag,
        "keys": s.keys,
        "log_bytes": s.log_bytes,
        "message": s.message,
    }


def status_rows(members: Sequence[MemberStatus]) -> Rows:
    """The members' own words for people."""
    behind = lags(members)
    return Rows(
        ("POD", "PARTITION", "ROLE", "SERVING", "IN SYNC", "EPOCH", "COMMIT", "LAG", "KEYS", "MESSAGE"),
        tuple(_status_row(one, behind.get(one.member.pod)) for one in members),
    )


def _status_row(one: MemberStatus, lag: int | None) -> tuple[str, ...]:
    if one.status is None:
        return (one.member.pod, str(one.member.partition), "unreachable", *[""] * 6, one.problem)
    s = one.status
    return (
        one.member.pod,
        str(s.partition),
        role_name(s.role),
        "yes" if s.serving else "no",
        "yes" if s.in_sync else "no",
        str(s.epoch),
        str(s.commit_index),
        "?" if lag is None else str(lag),
        str(s.keys),
        s.message,
    )


class Output:
    """Standard output in one format."""

    def __init__(self, form: Format) -> None:
        self.form = form

    def show(self, as_json: object, rows: Rows) -> None:
        """A table or its JSON."""
        if self.form is Format.JSON:
            self.json(as_json)
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in rows.columns:
            table.add_column(column, no_wrap=column not in ("MESSAGE", "IN SYNC", "REPLICAS"), overflow="fold")
        for row in rows.rows:
            table.add_row(*row)
        # A pipe has no width: lines are as long as they need to be.
        console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 250)
        console.print(table)

    def json(self, value: Any) -> None:
        """JSON on one line per call."""
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")

    def value(self, record: Record) -> None:
        """A record's value: its bytes as they are to a pipe; readable and with a line's end to a terminal."""
        if self.form is Format.JSON:
            self.json(record_json(record, with_value=True))
            return
        sys.stdout.flush()
        if not sys.stdout.isatty():
            sys.stdout.buffer.write(record.value)
            sys.stdout.buffer.flush()
            return
        shown = text_or_base64("value", record.value)
        sys.stdout.write(shown.get("value", f"base64:{shown.get('value_base64')}") + "\n")

    def version(self, key: bytes, version: int) -> None:
        """The answer to a write."""
        if self.form is Format.JSON:
            self.json(record_json(Record(key, b"", version), with_value=False))
            return
        sys.stdout.write(f"version {version}\n")
